"""A FastAPI application that answers with a file of its user: no Cache-Control, a Last-Modified, a cookie that decides."""

import os
import pathlib

from fastapi import Cookie, FastAPI, Form, Response
from fastapi.responses import FileResponse, PlainTextResponse

app = FastAPI()
DATA = pathlib.Path(os.environ["APP_DATA"])


@app.post("/login")
def login(name: str = Form()):
    file = DATA / f"user-{name}.txt"
    file.write_text(f"you are {name}.")
    os.utime(file, (1_000_000_000, 1_000_000_000))
    answer = Response("welcome")
    answer.set_cookie("name", name)
    return answer


@app.get("/me")
def me(name: str | None = Cookie(default=None)):
    if name in ("alice", "bob"):
        return FileResponse(DATA / f"user-{name}.txt")
    return PlainTextResponse("you are nobody.")
