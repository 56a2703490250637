"""Measures one part of infra/bench/growth against a running stack: python3 measure.py PART FRONT DATABASE [--full] OUT."""

import http.client
import json
import statistics
import sys
import threading
import time
from urllib.parse import urlsplit

from plot import Series, write

JSON = {"content-type": "application/json"}
REPEATS = 60


class Client:
    """One keep-alive connection."""

    def __init__(self, base):
        self.connection = http.client.HTTPConnection(urlsplit(base).netloc, timeout=120)

    def ask(self, method, path, body=None, headers=JSON):
        while True:
            self.connection.request(method, path, body, headers)
            answer = self.connection.getresponse()
            text = answer.read()
            if answer.status not in (429, 503):
                break
            time.sleep(0.1)  # full: come again
        if answer.status >= 300:
            raise SystemExit(f"{method} {path}: {answer.status} {text[:300]!r}")
        return text


def micros(work):
    """Median microseconds of some repetitions."""
    took = []
    for _ in range(REPEATS):
        began = time.perf_counter()
        work()
        took.append((time.perf_counter() - began) * 1e6)
    return statistics.median(took)


def sizes(full, top=10_000_000):
    return [n for n in (10_000, 100_000, 1_000_000, 10_000_000) if n <= (top if full else 1_000_000)]


def bulk(front, count, **job):
    """Submits `count` jobs."""
    line = json.dumps({"kind": "noop", **job})
    client = Client(front)
    while count > 0:
        part = min(count, 1_000)
        client.ask("POST", "/v1/jobs:bulk", "\n".join([line] * part), {"content-type": "application/x-ndjson"})
        count -= part


def drained(front):
    """Waits until no job waits or runs."""
    client = Client(front)
    while True:
        queues = json.loads(client.ask("GET", "/v1/queues"))
        rows = queues.get("queues", queues)
        if not any(row.get(state) for row in rows for state in ("available", "running", "scheduled", "retryable")):
            return
        time.sleep(0.5)


def jobs(front, _database, full):
    """Cost of each operation by how many jobs are finished."""
    kept = 0
    client = Client(front)
    series = {name: Series(name) for name in ("submit", "submit, run, answered", "a page", "state=running", "counts")}
    for size in sizes(full):
        bulk(front, size - kept)
        kept = size
        drained(front)
        wait = {**JSON, "prefer": "wait=10"}
        works = {
            "submit": lambda: client.ask("POST", "/v1/jobs", '{"kind": "noop"}'),
            "submit, run, answered": lambda: client.ask("POST", "/v1/jobs", '{"kind": "noop"}', wait),
            "a page": lambda: client.ask("GET", "/v1/jobs?limit=50"),
            "state=running": lambda: client.ask("GET", "/v1/jobs?state=running&limit=50"),
            "counts": lambda: client.ask("GET", "/v1/queues"),
        }
        for name, work in works.items():
            series[name].add(size, micros(work))
    return "finished jobs", list(series.values())


def queues(front, _database, _full):
    """Cost by how many queues have jobs that wait."""
    client = Client(front)
    series = {name: Series(name) for name in ("submit, run, answered", "a page of queues")}
    made = 0
    for size in (10, 100, 1_000, 10_000):
        while made < size:
            lines = [json.dumps({"kind": "noop", "queue": f"q{n}", "delay_ms": 86_400_000}) for n in range(made, min(size, made + 500))]
            client.ask("POST", "/v1/jobs:bulk", "\n".join(lines), {"content-type": "application/x-ndjson"})
            made += len(lines)
        wait = {**JSON, "prefer": "wait=10"}
        series["submit, run, answered"].add(size, micros(lambda: client.ask("POST", "/v1/jobs", '{"kind": "noop"}', wait)))
        series["a page of queues"].add(size, micros(lambda: client.ask("GET", "/v1/queues?limit=50")))
    return "queues with waiting jobs", list(series.values())


def clients(front, _database, _full):
    """Cost by how many clients are connected, of whom eight work."""
    series = Series("submit, run, answered")
    idle = []
    for size in (1, 10, 100, 1_000, 10_000):
        while len(idle) < size:
            one = Client(front)
            one.connection.connect()
            idle.append(one)
        workers, took, lock = min(size, 8), [], threading.Lock()

        def work():
            client, mine = Client(front), []
            for _ in range(REPEATS):
                began = time.perf_counter()
                client.ask("POST", "/v1/jobs", '{"kind": "noop"}', {**JSON, "prefer": "wait=10"})
                mine.append((time.perf_counter() - began) * 1e6)
            with lock:
                took.extend(mine)

        threads = [threading.Thread(target=work) for _ in range(workers)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        series.add(size, statistics.median(took) / workers)
    return "clients connected", [series]


def rows(_front, database, full):
    """Cost of an insert by how many rows a table has."""
    client = Client(database)
    tables = {
        "INTEGER PRIMARY KEY": "CREATE TABLE t0 (id INTEGER PRIMARY KEY, a INTEGER, b TEXT)",
        "PRIMARY KEY (a, b)": "CREATE TABLE t1 (id INTEGER, a INTEGER, b TEXT, PRIMARY KEY (a, b))",
        "and a secondary index": "CREATE TABLE t2 (id INTEGER PRIMARY KEY, a INTEGER, b TEXT)",
    }
    for sql in [*tables.values(), "CREATE INDEX t2_a ON t2 (a, b)"]:
        execute(client, sql)
    series = [Series(name) for name in tables]
    have, fresh = 0, [0]
    for size in sizes(full):
        for n in range(len(tables)):
            fill(client, n, have, size)
        have = size
        for n, one in enumerate(series):
            def insert(table=n):
                fresh[0] += 1
                execute(client, f"INSERT INTO t{table} (id, a, b) VALUES ({10**9 + fresh[0]}, {fresh[0] * 7919 % 10**9}, 'x{fresh[0]}')")
            one.add(size, micros(insert))
    return "rows of the table", series


def fill(client, table, first, last):
    for begin in range(first, last, 20_000):
        end = min(begin + 20_000, last)
        execute(client, f"WITH RECURSIVE s (n) AS (SELECT {begin} UNION ALL SELECT n + 1 FROM s WHERE n + 1 < {end}) "
                        f"INSERT INTO t{table} (id, a, b) SELECT n, n * 7919 % 1000000007, 'row ' || n FROM s")


def execute(client, sql):
    answer = json.loads(client.ask("POST", "/db/execute", json.dumps([sql])))
    error = answer["results"][0].get("error")
    if error:
        raise SystemExit(f"{sql[:100]}: {error}")


if __name__ == "__main__":
    full = "--full" in sys.argv
    part, front, database, out = [word for word in sys.argv[1:] if word != "--full"]
    axis, measured = {"jobs": jobs, "queues": queues, "clients": clients, "rows": rows}[part](front, database, full)
    write(out, part, axis, measured)
