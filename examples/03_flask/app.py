"""A small Flask application: notes with a JSON API and a form, uploads, live events, and routes that fail."""

from __future__ import annotations

import hashlib
import logging
import os
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from flask import Flask, Response, abort, g, redirect, render_template_string, request, stream_with_context

DATA = Path(os.environ.get("NOTES_DATA") or Path(__file__).parent / "var")
LONGEST_NOTE = 200
PIECE = 64 * 1024

app = Flask(__name__)
# A route that fails ends in the gateway, which answers 500 and logs the traceback under the request's id.
# Without this Flask answers by itself and writes the traceback to `wsgi.errors`.
app.config["PROPAGATE_EXCEPTIONS"] = True
logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")


# --- the notes: a table in SQLite, so that all daemon processes see the same --------------------------------


def database() -> sqlite3.Connection:
    """This request's connection."""
    if "database" not in g:
        DATA.mkdir(parents=True, exist_ok=True)
        g.database = sqlite3.connect(DATA / "notes.sqlite3", timeout=20)
        g.database.row_factory = sqlite3.Row
        g.database.execute("CREATE TABLE IF NOT EXISTS note (id INTEGER PRIMARY KEY, text TEXT NOT NULL)")
    connection: sqlite3.Connection = g.database
    return connection


@app.teardown_appcontext
def close_database(_error: BaseException | None) -> None:
    """Give the connection back."""
    if connection := g.pop("database", None):
        connection.close()


def complaint_about(text: object) -> str:
    """What is wrong with a note's text, or nothing."""
    if not isinstance(text, str) or not text.strip():
        return "A note needs a text."
    if len(text) > LONGEST_NOTE:
        return f"A note has at most {LONGEST_NOTE} characters."
    return ""


def add_note(text: str) -> int:
    """Keep a note and return its number."""
    with database() as connection:
        number = connection.execute("INSERT INTO note (text) VALUES (?)", (text,)).lastrowid
    app.logger.info("note %s added", number)
    return int(number or 0)


@app.get("/api/notes")
def list_notes() -> list[dict[str, Any]]:
    """All notes, the oldest first."""
    return [dict(row) for row in database().execute("SELECT id, text FROM note ORDER BY id")]


@app.post("/api/notes")
def create_note() -> tuple[dict[str, Any], int, dict[str, str]]:
    """Add the note of a JSON body."""
    body = request.get_json()
    text = body.get("text") if isinstance(body, dict) else None
    if complaint := complaint_about(text):
        return {"error": complaint}, 422, {}
    number = add_note(str(text))
    return {"id": number, "text": text}, 201, {"Location": f"/api/notes/{number}"}


@app.get("/api/notes/<int:number>")
def show_note(number: int) -> dict[str, Any]:
    """One note."""
    row = database().execute("SELECT id, text FROM note WHERE id = ?", (number,)).fetchone()
    return dict(row) if row else abort(404)


@app.delete("/api/notes/<int:number>")
def delete_note(number: int) -> tuple[str, int]:
    """Forget a note."""
    with database() as connection:
        found = connection.execute("DELETE FROM note WHERE id = ?", (number,)).rowcount
    return ("", 204) if found else abort(404)


PAGE = """<!doctype html>
<html lang="en">
<head><meta charset="utf-8"><title>Notes</title><link rel="stylesheet" href="/static/notes.css"></head>
<body>
<h1>Notes</h1>
<form method="post">
  <label>New note <input name="text" value="{{ text }}"></label> <button>Add</button>
  {% if complaint %}<p class="complaint">{{ complaint }}</p>{% endif %}
</form>
<ul>{% for note in notes %}<li>{{ note.text }}</li>{% endfor %}</ul>
</body>
</html>
"""


@app.route("/", methods=["GET", "POST"])
def page() -> Any:
    """The notes as a page with a form."""
    text = request.form.get("text", "")
    complaint = complaint_about(text) if request.method == "POST" else ""
    if request.method == "POST" and not complaint:
        add_note(text)
        return redirect("/", 303)
    html = render_template_string(PAGE, notes=list_notes(), text=text, complaint=complaint)
    return html, 422 if complaint else 200


# --- bytes in and out ---------------------------------------------------------------------------------------


@app.post("/upload")
def upload() -> dict[str, Any]:
    """Measure the file of a form."""
    if not (file := request.files.get("file")):
        abort(400, "no file was sent")
    return {"name": file.filename, "comment": request.form.get("comment", ""), **measure(file.stream)}


@app.route("/raw/<name>", methods=["PUT", "POST"])
def upload_raw(name: str) -> tuple[dict[str, Any], int]:
    """Measure the request's body, which may be chunked, without ever holding more than a piece of it."""
    return {"name": name, **measure(request.stream)}, 201


def measure(stream: Any) -> dict[str, Any]:
    """The length and the digest of what can be read from a stream."""
    size, digest = 0, hashlib.sha256()
    while piece := stream.read(PIECE):
        size += len(piece)
        digest.update(piece)
    return {"size": size, "sha256": digest.hexdigest()}


@app.get("/download/<int:size>")
def download(size: int) -> Response:
    """So many bytes, piece by piece; with `?length=1` their number is declared."""
    response = Response(pattern(size), mimetype="application/octet-stream")
    if request.args.get("length"):
        response.content_length = size
    return response


def pattern(size: int) -> Iterator[bytes]:
    """A pattern in which every byte tells where it belongs, 64 KiB at a time."""
    line = bytes(range(256)) * (PIECE // 256)
    for start in range(0, size, PIECE):
        yield line[: min(PIECE, size - start)]


@app.get("/events")
def events() -> Response:
    """Server-sent events: `?count=5&pause=1`."""
    count, pause = request.args.get("count", 5, int), request.args.get("pause", 1.0, float)

    @stream_with_context
    def tell() -> Iterator[str]:
        for number in range(count):
            if number:
                time.sleep(pause)
            yield f"id: {number}\nevent: tick\ndata: {request.path} {number}\n\n"

    return Response(tell(), mimetype="text/event-stream", headers={"Cache-Control": "no-cache"})


# --- what goes wrong ----------------------------------------------------------------------------------------


@app.get("/fail")
def fail() -> str:
    """Raise before anything was sent: the client gets 500."""
    app.logger.warning("about to fail")
    raise RuntimeError("this route fails on purpose")


@app.get("/fail-late")
def fail_late() -> Response:
    """Raise in the middle of the response: the client must be able to tell that it is not whole."""

    def tell() -> Iterator[bytes]:
        yield b"the first half, "
        raise RuntimeError("this response fails on purpose, half-way")

    return Response(tell(), mimetype="text/plain")
