// rqlite-js: its data, status and backup clients.
const assert = require('node:assert')
const rqlite = require('rqlite-js')

const url = `http://127.0.0.1:${process.env.DATABASE_PORT}`
const { DataApiClient, StatusApiClient, BackupApiClient } = rqlite

const read = async (stream) => {
  const pieces = []
  for await (const piece of stream) pieces.push(piece)
  return Buffer.concat(pieces.map((piece) => Buffer.from(piece)))
}

const main = async () => {
  const data = new DataApiClient(url)
  let results = await data.execute('CREATE TABLE js (id INTEGER NOT NULL PRIMARY KEY, name TEXT)')
  assert(!results.hasError(), JSON.stringify(results.results))
  results = await data.execute([['INSERT INTO js(name) VALUES(?)', 'fiona'], 'INSERT INTO js(name) VALUES("dana")'])
  assert(!results.hasError(), JSON.stringify(results.results))
  results = await data.execute([['INSERT INTO js(name) VALUES(?)', 'eve'], ["UPDATE js SET name = :name WHERE id = 1", { name: 'Fiona' }]], { transaction: true })
  assert(!results.hasError(), JSON.stringify(results.results))
  assert.strictEqual(results.get(0).getLastInsertId(), 3)
  assert.strictEqual(results.get(1).getRowsAffected(), 1)
  for (const level of ['none', 'weak', 'strong', 'linearizable']) {
    results = await data.query('SELECT id, name FROM js ORDER BY id', { level })
    assert.deepStrictEqual(results.toArray(), [{ id: 1, name: 'Fiona' }, { id: 2, name: 'dana' }, { id: 3, name: 'eve' }], level)
  }
  results = await data.query([['SELECT name FROM js WHERE id = ?', 2], 'SELECT * FROM js WHERE 0'])
  assert.strictEqual(results.get(0).get('name'), 'dana')
  results = await data.execute('INSERT INTO js(id) VALUES(1)')
  assert(results.hasError() && /UNIQUE/.test(results.getFirstError().toString()), 'an error is told')

  const status = await new StatusApiClient(url).statusAllHosts()
  assert.strictEqual(status[0].response.status, 200)

  const backups = new BackupApiClient(url)
  const backup = await backups.backup()
  const file = await read(backup.body || backup)
  assert.strictEqual(file.subarray(0, 15).toString(), 'SQLite format 3')
  await backups.load("CREATE TABLE loaded(x); INSERT INTO loaded VALUES('a;b');", 'sql')
  results = await data.query('SELECT x FROM loaded')
  assert.deepStrictEqual(results.toArray(), [{ x: 'a;b' }])
  await backups.load(file, 'binary')
  results = await data.query('SELECT x FROM loaded')
  assert(results.hasError(), 'the backup of before is back')
  results = await data.query('SELECT count(*) AS n FROM js')
  assert.strictEqual(results.get(0).get('n'), 3)
}

main().catch((error) => { console.error(error); process.exit(1) })
