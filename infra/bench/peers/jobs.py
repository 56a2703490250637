"""Job runners of the Python world under one harness: Celery and Dramatiq on RabbitMQ, default worker settings.

    python jobs.py PEER round    one line a metric: enqueue, drain, latency
    python jobs.py PEER rescue   seconds from kill -9 of a worker with 4 jobs in hand until all 4 have run again

AMQP_URL says where the broker is. Jobs report to the harness over a Unix datagram socket, which blocks and never drops.
Publishing is confirmed by the broker: without that nothing is acknowledged.
"""

import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time

PRODUCERS, ENQUEUE, DRAIN, PER_SECOND, LATENCY_S, IN_HAND = 64, 10_000, 20_000, 50, 6, 4
RESCUE_LIMIT_S = float(os.environ.get("RESCUE_LIMIT_S", "75"))
PEER = os.environ.get("PEER") or (sys.argv[1] if len(sys.argv) > 1 else "")
REPORT = os.environ.setdefault("REPORT", tempfile.mktemp(prefix="standfast-bench-", suffix=".sock"))
reporter = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)


def report(text):
    reporter.sendto(text.encode(), REPORT)


if PEER == "celery":
    from celery import Celery

    app = Celery("jobs", broker=os.environ["AMQP_URL"])
    app.conf.update(broker_transport_options={"confirm_publish": True}, task_ignore_result=True, broker_pool_limit=PRODUCERS,
                    worker_hijack_root_logger=False, broker_connection_retry_on_startup=True)

    @app.task(name="noop")
    def noop(at):
        report(f"{time.time() - at}")

    @app.task(name="hold")
    def hold(i):
        report(f"held {i}" if os.environ.get("VICTIM") else f"again {i}")
        if os.environ.get("VICTIM"):
            time.sleep(3600)

    def enqueue(at):
        noop.delay(at)

    worker_command = ["celery", "-A", "jobs", "worker", "--loglevel", "error", "--without-gossip", "--without-mingle"]
    holding = ["--concurrency", str(IN_HAND)]
elif PEER == "dramatiq":
    import dramatiq
    from dramatiq.brokers.rabbitmq import RabbitmqBroker

    dramatiq.set_broker(RabbitmqBroker(url=os.environ["AMQP_URL"], confirm_delivery=True))

    @dramatiq.actor(queue_name="bench")
    def noop(at):
        report(f"{time.time() - at}")

    @dramatiq.actor(queue_name="bench", time_limit=7_200_000)
    def hold(i):
        report(f"held {i}" if os.environ.get("VICTIM") else f"again {i}")
        if os.environ.get("VICTIM"):
            time.sleep(3600)

    def enqueue(at):
        noop.send(at)

    worker_command = ["dramatiq", "jobs"]
    holding = []


def start_worker(**extra):
    here = os.path.dirname(os.path.abspath(__file__))
    env = dict(os.environ, PEER=PEER, PYTHONPATH=here, C_FORCE_ROOT="1", **extra)
    more = holding if extra else []
    return subprocess.Popen([sys.executable, "-m", *worker_command, *more], cwd=here, env=env, start_new_session=True,
                            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def kill(worker):
    os.killpg(worker.pid, signal.SIGKILL)
    worker.wait()


def produce(jobs):
    """64 producers: 4 processes of 16 threads, so that one interpreter lock is not what is measured."""

    def share(count):
        threads = [threading.Thread(target=lambda: [enqueue(time.time()) for _ in range(count)]) for _ in range(16)]
        [t.start() for t in threads]
        [t.join() for t in threads]

    began = time.monotonic()
    children = []
    for _ in range(4):
        pid = os.fork()
        if pid == 0:
            share(jobs // PRODUCERS)
            os._exit(0)
        children.append(pid)
    for pid in children:
        os.waitpid(pid, 0)
    made = jobs // PRODUCERS * PRODUCERS
    return made, made / (time.monotonic() - began)


def listen():
    box = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    box.bind(REPORT)
    return box


def round_():
    box = listen()
    made, rate = produce(ENQUEUE)
    print(f"enqueue_per_s {rate:.2f}", flush=True)
    made += produce(DRAIN)[0]
    worker = start_worker()
    try:
        box.recv(64)
        began = time.monotonic()
        for _ in range(made - 1):
            box.recv(64)
        print(f"drain_per_s {made / (time.monotonic() - began):.2f}", flush=True)
        late = []
        for _ in range(PER_SECOND * LATENCY_S):
            due = time.monotonic() + 1 / PER_SECOND
            enqueue(time.time())
            late.append(float(box.recv(64)) * 1000)
            time.sleep(max(0, due - time.monotonic()))
        late.sort()
        print(f"latency_p50_ms {late[len(late) // 2]:.2f}\nlatency_p99_ms {late[int(len(late) * 0.99)]:.2f}", flush=True)
    finally:
        kill(worker)


def rescue():
    box = listen()
    victim = start_worker(VICTIM="1")
    for i in range(IN_HAND):
        (hold.delay if PEER == "celery" else hold.send)(i)
    for _ in range(IN_HAND):
        box.recv(64)
    kill(victim)
    began = time.monotonic()
    worker = start_worker()
    again = set()
    try:
        while len(again) < IN_HAND:
            box.settimeout(max(0.01, began + RESCUE_LIMIT_S - time.monotonic()))
            again.add(box.recv(64))
        print(f"rescue_s {time.monotonic() - began:.2f}", flush=True)
    except TimeoutError:
        print(f"rescue_s >{RESCUE_LIMIT_S:.0f}", flush=True)
    finally:
        kill(worker)


if __name__ == "__main__":
    try:
        {"round": round_, "rescue": rescue}[sys.argv[2]]()
    finally:
        if os.path.exists(REPORT):
            os.unlink(REPORT)
