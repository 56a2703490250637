"""A Flask application with its usual sessions, kept in a signed cookie."""

import os

from flask import Flask, request, session

app = Flask(__name__)
app.secret_key = os.urandom(16)


@app.post("/login")
def login():
    session["name"] = request.form["name"]
    return "welcome"


@app.get("/me")
def me():
    return f"you are {session['name']}." if "name" in session else "you are nobody."
