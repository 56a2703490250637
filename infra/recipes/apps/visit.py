"""Two users and a stranger, all at once; nobody sees what is another's.

    visit.py URL form ROUNDS                 POST /login name=…, then /me shows the name; a stranger's /me shows none
    visit.py URL admin ROUNDS                the same at Django's admin
    visit.py URL static PATH ROUNDS          first visitors of a cacheable file behind a session get no session of another's
    visit.py URL source PATH… FILE           no program's text is shown; FILE is
"""

import concurrent.futures
import re
import sys

import requests

url, what, *rest = sys.argv[1:]


def together(*visits):
    with concurrent.futures.ThreadPoolExecutor(len(visits)) as threads:
        for done in [threads.submit(visit) for visit in visits]:
            done.result()


def form(name, rounds, coding):
    session = requests.Session()
    session.headers["accept-encoding"] = coding
    answer = session.post(f"{url}/login", data={"name": name})
    assert answer.status_code == 200, (name, answer.status_code, answer.text)
    for _ in range(rounds):
        text = session.get(f"{url}/me").text
        assert f"you are {name}." in text, (name, text)


def admin(name, rounds, coding):
    session = requests.Session()
    session.headers["accept-encoding"] = coding
    page = session.get(f"{url}/admin/login/").text
    token = re.search(r'name="csrfmiddlewaretoken" value="([^"]+)"', page).group(1)
    fields = {"csrfmiddlewaretoken": token, "username": name, "password": f"{name}-password", "next": "/admin/"}
    answer = session.post(f"{url}/admin/login/", data=fields, headers={"referer": f"{url}/admin/login/"})
    assert answer.status_code == 200, (name, answer.status_code)
    for _ in range(rounds):
        for path in ["/admin/", "/admin/auth/user/"]:
            text = session.get(f"{url}{path}").text
            assert f"<strong>{name}</strong>" in text, (name, path, text[:500])


def stranger(path, rounds, secrets):
    for turn in range(rounds):
        coding = ["identity", "gzip", "br"][turn % 3] if turn % 2 else "identity"
        answer = requests.get(f"{url}{path}", headers={"accept-encoding": "gzip" if coding == "br" else coding})
        assert not any(secret in answer.text for secret in secrets), (path, answer.text[:500])
        assert answer.headers.get("content-encoding", "identity") in ("identity", "gzip"), answer.headers


if what == "form":
    rounds = int(rest[0])
    names = ["alice", "bob"]
    visits = [lambda name=name, coding=coding: form(name, rounds, coding) for name, coding in zip(names, ["gzip", "identity"])]
    together(*visits, lambda: stranger("/me", rounds, names))
    print(f"  {rounds} pages each for two users and a stranger: everybody saw their own")
elif what == "admin":
    rounds = int(rest[0])
    secrets = [f"<strong>{name}</strong>" for name in ("alice", "bob")]
    visits = [lambda name=name, coding=coding: admin(name, rounds, coding) for name, coding in zip(["alice", "bob"], ["gzip", "identity"])]
    together(*visits, lambda: stranger("/admin/", rounds, secrets))
    print(f"  {2 * rounds} pages of the admin each for two users and a stranger: everybody saw their own")
elif what == "static":
    path, rounds = rest[0], int(rest[1])
    seen = []

    def first_visit():
        answer = requests.get(f"{url}{path}")
        assert answer.status_code == 200, answer.status_code
        seen.append(answer.cookies.get("sid"))

    together(*[first_visit] * rounds)
    given = [sid for sid in seen if sid]
    assert len(given) == len(set(given)), "two visitors share a session"
    print(f"  {rounds} first visitors of a static file: {len(given)} sessions, none shared")
elif what == "source":
    *programs, file = rest
    for path in programs:
        text = requests.get(f"{url}{path}").text
        assert "<?php" not in text, path
    assert requests.get(f"{url}{file}").text.startswith("body"), file
    print("  no program shows its text")
