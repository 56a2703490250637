// Job runners of the Node world under one harness: pg-boss and graphile-worker on PostgreSQL, BullMQ on Redis.
//   node jobs.mjs PEER round    one line a metric: enqueue, drain, latency
//   node jobs.mjs PEER rescue   seconds from kill -9 of a worker with 4 jobs in hand until all 4 have run again
// PG_URL and REDIS_PORT say where the servers are. Modules are found in the working directory.
import { spawn } from 'node:child_process'
import { createRequire } from 'node:module'
import { performance } from 'node:perf_hooks'

const require = createRequire(`${process.cwd()}/`)
const PRODUCERS = 64, ENQUEUE = 10_000, DRAIN = 20_000, PER_SECOND = 50, LATENCY_S = 6, IN_HAND = 4
const RESCUE_LIMIT_S = Number(process.env.RESCUE_LIMIT_S ?? 75)
const [peer, action] = process.argv.slice(2)
const sleep = ms => new Promise(done => setTimeout(done, ms))
const say = (metric, value) => console.log(`${metric} ${value.toFixed(2)}`)

// Each adapter: open(), enqueue(data) resolves when acknowledged, bulk(n), work(handler) resolves when it consumes.
const adapters = {
  // The documented fetch/complete loop in batches: `work()` sleeps half a second between batches.
  'pg-boss': async () => {
    const PgBoss = require('pg-boss')
    const boss = new PgBoss({ connectionString: process.env.PG_URL, max: PRODUCERS, supervise: true })
    boss.on('error', () => {})
    await boss.start()
    await boss.createQueue('bench')
    return {
      enqueue: data => boss.send('bench', data),
      bulk: async n => { for (let i = 0; i < n; i += 1000) await boss.insert(Array.from({ length: 1000 }, (_, k) => ({ name: 'bench', data: { i: i + k } }))) },
      work: async handler => {
        const loop = async () => {
          for (;;) {
            const jobs = await boss.fetch('bench', { batchSize: 1000 }) ?? []
            await Promise.all(jobs.map(job => handler(job.data)))
            if (jobs.length) await boss.complete('bench', jobs.map(job => job.id))
            else await sleep(5)
          }
        }
        loop()
      },
    }
  },
  // The settings its own performance page recommends: a local queue and batched completion.
  'graphile-worker': async () => {
    const { makeWorkerUtils, run } = require('graphile-worker')
    const { Pool } = require('pg')
    const pool = max => new Pool({ connectionString: process.env.PG_URL, max }).on('error', () => {}).on('connect', c => c.on('error', () => {}))
    const pgPool = pool(PRODUCERS)
    const utils = await makeWorkerUtils({ pgPool })
    await utils.migrate()
    return {
      enqueue: data => utils.addJob('bench', data),
      bulk: async n => { for (let i = 0; i < n; i += 1000) await utils.addJobs(Array.from({ length: 1000 }, (_, k) => ({ identifier: 'bench', payload: { i: i + k } }))) },
      work: handler => run({
        pgPool: pool(10), taskList: { bench: handler }, noHandleSignals: true, logger: quiet(),
        preset: { worker: { concurrentJobs: 24, localQueue: { size: 500 }, completeJobBatchDelay: 0, failJobBatchDelay: 0, maxPoolSize: 10 } },
      }),
    }
  },
  bullmq: async () => {
    const { Queue, Worker } = require('bullmq')
    const connection = { host: '127.0.0.1', port: Number(process.env.REDIS_PORT), maxRetriesPerRequest: null }
    const queue = new Queue('bench', { connection, defaultJobOptions: { removeOnComplete: true } })
    await queue.waitUntilReady()
    return {
      enqueue: data => queue.add('bench', data),
      bulk: async n => { for (let i = 0; i < n; i += 1000) await queue.addBulk(Array.from({ length: 1000 }, (_, k) => ({ name: 'bench', data: { i: i + k } }))) },
      work: async handler => {
        const worker = new Worker('bench', job => handler(job.data), { connection, concurrency: 64 })
        worker.on('error', () => {})
        await worker.waitUntilReady()
      },
    }
  },
}
function quiet() { const { Logger } = require('graphile-worker'); return new Logger(() => () => {}) }

async function producers(queue, jobs) {
  let left = jobs
  const began = performance.now()
  await Promise.all(Array.from({ length: PRODUCERS }, async () => { while (left-- > 0) await queue.enqueue({ at: 0 }) }))
  return jobs / (performance.now() - began) * 1000
}

async function round() {
  const queue = await adapters[peer]()
  await producers(queue, 500)
  say('enqueue_per_s', await producers(queue, ENQUEUE))
  const bulk = performance.now()
  await queue.bulk(DRAIN)
  say('bulk_per_s', DRAIN / (performance.now() - bulk) * 1000)
  const total = DRAIN + ENQUEUE + 500 // what enqueue left is drained with the rest
  let done = 0, first = 0, drained, phase = handled => handled
  const end = new Promise(resolve => { drained = resolve })
  phase = () => { first ||= performance.now(); if (++done === total) drained() }
  await queue.work(async data => phase(data))
  await end
  say('drain_per_s', total / (performance.now() - first) * 1000)
  const late = []
  phase = data => late.push(performance.timeOrigin + performance.now() - data.at)
  for (let i = 0; i < PER_SECOND * LATENCY_S; i++) {
    queue.enqueue({ at: performance.timeOrigin + performance.now() })
    await sleep(1000 / PER_SECOND)
  }
  await sleep(1000)
  late.sort((a, b) => a - b)
  say('latency_p50_ms', late[Math.floor(late.length * 0.5)])
  say('latency_p99_ms', late[Math.floor(late.length * 0.99)])
}

async function victim() { // takes what it is given and never ends
  const queue = await adapters[peer]()
  let held = 0
  await queue.work(() => { if (++held === IN_HAND) console.log('held'); return new Promise(() => {}) })
  await new Promise(() => {})
}

async function rescue() {
  const queue = await adapters[peer]()
  for (let i = 0; i < IN_HAND; i++) await queue.enqueue({ i })
  const child = spawn(process.execPath, [process.argv[1], peer, 'victim'], { stdio: ['ignore', 'pipe', 'inherit'] })
  await new Promise(held => child.stdout.on('data', held))
  child.kill('SIGKILL')
  const began = performance.now(), again = new Set()
  await queue.work(async data => { again.add(data.i) })
  while (again.size < IN_HAND && performance.now() - began < RESCUE_LIMIT_S * 1000) await sleep(20)
  if (again.size === IN_HAND) say('rescue_s', (performance.now() - began) / 1000)
  else console.log(`rescue_s >${RESCUE_LIMIT_S}`)
}

await { round, victim, rescue }[action]()
process.exit(0)
