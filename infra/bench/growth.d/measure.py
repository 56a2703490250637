"""Measures one part of infra/bench/growth against a running stack: python3 measure.py PART FRONT OTHER --top N OUT.

OTHER is the database's address, or the console's for `prune`."""

import http.client
import json
import os
import re
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


def sizes(top):
    """By tens from ten thousand."""
    return [n for n in (10_000, 100_000, 1_000_000, 10_000_000) if n <= top]


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
        queues = json.loads(client.ask("GET", "/v1/queues"))["queues"]
        if not any(queue["jobs"][state] for queue in queues for state in ("available", "running", "scheduled", "retryable")):
            return
        time.sleep(0.5)


def jobs(front, _database, top):
    """Cost of each operation by how many jobs are finished."""
    kept = 0
    client = Client(front)
    series = {name: Series(name) for name in ("submit", "submit, run, answered", "a page", "state=running", "counts")}
    for size in sizes(top):
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


def prune(front, console, top):
    """Cost of a job that is pruned, and of one that is submitted meanwhile, by how many are finished and old."""
    series = {name: Series(name) for name in ("a job pruned", "a job submitted meanwhile, 1,000 a request")}
    gone = 0
    for size in sizes(top):
        with open(os.environ["HOURS"], "w", encoding="utf-8") as hours:
            hours.write("-2h")
        time.sleep(3)  # the clock is looked at once a second
        bulk(front, size)
        drained(front)
        with open(os.environ["HOURS"], "w", encoding="utf-8") as hours:
            hours.write("+0h")
        submitted, began, first = 0, None, time.perf_counter()
        while (now := pruned(console)) < gone + size:
            if began is None and now > gone:
                began, first, submitted = now, time.perf_counter(), 0
            if began is not None:
                bulk(front, 1_000)
                submitted += 1_000
            else:
                time.sleep(0.05)
            if time.perf_counter() - first > 1800:
                raise SystemExit(f"only {now - gone} of {size} jobs were pruned in half an hour")
        took = time.perf_counter() - first
        gone = pruned(console)
        drained(front)
        series["a job pruned"].add(size, took * 1e6 / (gone - began or 1))
        series["a job submitted meanwhile, 1,000 a request"].add(size, took * 1e6 / max(submitted, 1))
    return "finished jobs that are old", list(series.values())


def pruned(console):
    """Jobs that the runner has pruned since it started."""
    text = Client(console).ask("GET", "/metrics", headers={}).decode()
    return int(sum(float(n) for n in re.findall(r"^standfast_jobs_pruned_total\{[^}]*\} (\S+)", text, re.M)))


def queues(front, _database, _top):
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


def clients(front, _database, _top):
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


def rows(_front, database, top):
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
    for size in sizes(top):
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
    part, front, other, _, top, out = sys.argv[1:]
    parts = {"jobs": jobs, "prune": prune, "queues": queues, "clients": clients, "rows": rows}
    axis, measured = parts[part](front, other, int(top))
    write(out, part, axis, measured)
