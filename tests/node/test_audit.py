"""A leader opens its database once: closing a second descriptor would drop the first one's locks.

POSIX locks belong to the process, and the first `close` of any descriptor of the file ends them.
So a process that leads, serves, adopts and purges is watched by an audit hook.
"""

import json
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from support.machine import Machine

pytestmark = [pytest.mark.processes, pytest.mark.xdist_group("processes")]

PROGRAM = """
import asyncio, json, os, sys, urllib.request

DATABASE = os.environ["CLAUDE_PEERS_DB"]
OPENING = {"open", "sqlite3.connect", "os.link", "os.rename", "os.truncate", "shutil.copyfile"}
seen = []

def hook(event, arguments):
    if event in OPENING and arguments and isinstance(arguments[0], (str, bytes)):
        if os.fsdecode(arguments[0]).startswith(DATABASE) and ".d/" not in str(arguments[0]):
            seen.append(event)

sys.addaudithook(hook)

from claude_peers import settings
from claude_peers.client.client import Client
from claude_peers.node.node import Node

me = {"pid": os.getpid(), "cwd": "/", "name": "me"}

def outside(port):
    for path in ("/health", "/status", "/"):
        urllib.request.urlopen(f"http://127.0.0.1:{port}{path}").read()

async def lead():
    chosen = settings.load()
    client = Client(lambda: dict(me))
    node = Node(chosen, client)
    running = asyncio.ensure_future(node.run())
    await asyncio.wait_for(client.registered.wait(), 30)
    mine = {"id": client.peer_id}
    for operation, body in (
        ("/send-message", {"from_id": client.peer_id, "to_id": "me", "text": "hello"}),
        ("/send-message", {"from_id": client.peer_id, "to_id": "old00001", "text": "hello"}),
        ("/list-peers", {"scope": "machine"}),
        ("/set-summary", {**mine, "summary": "x"}),
        ("/peek-messages", mine),
        ("/poll-messages", {**mine, "ack_supported": True}),
        ("/ack-messages", {**mine, "message_ids": [2, 3]}),
        ("/heartbeat", mine),
        ("/ledger", mine),
    ):
        await client.call(operation, body)
    await asyncio.to_thread(outside, chosen.port)
    broker = node._office._server.app.broker
    adopted = await broker.store.unread("old00001")
    broker._context.clock.wall = lambda: 4e9
    await broker.peers.sweep()
    await broker.tidy()
    ledger = await client.call("/ledger", mine)
    await client.call("/unregister", mine)
    while_leading = list(seen)
    await node.stop()
    await running
    seen.clear()
    open(DATABASE, "rb").close()
    return {
        "opened": while_leading,
        "control": seen,
        "adopted": [message.text for message in adopted],
        "ledger": ledger,
    }

print(json.dumps(asyncio.run(lead())))
"""
UPSTREAM = """
CREATE TABLE peers (id TEXT PRIMARY KEY, pid INTEGER, cwd TEXT, git_root TEXT, tty TEXT,
    summary TEXT, registered_at TEXT, last_seen TEXT);
CREATE TABLE messages (id INTEGER PRIMARY KEY AUTOINCREMENT, from_id TEXT, to_id TEXT, text TEXT,
    sent_at TEXT, delivered INTEGER DEFAULT 0);
INSERT INTO peers VALUES ('old00001', 1, '/', NULL, NULL, '', '2025-01-01', '2025-01-01');
"""


def leave_upstream_database(path: Path, text: str) -> None:
    database = sqlite3.connect(path)
    database.executescript(UPSTREAM)
    database.execute(
        "INSERT INTO messages (from_id, to_id, text, sent_at) VALUES ('a', 'old00001', ?, '2025')",
        [text],
    )
    database.commit()
    database.close()


def lead(machine: Machine) -> dict:
    result = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        env=machine.environment(),
        cwd=machine.work,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    return dict(json.loads(result.stdout))


def test_a_leader_opens_its_database_once(machine: Machine):
    leave_upstream_database(machine.database, "from the same file")
    leave_upstream_database(machine.home / ".agentmesh.db", "from another file")

    told = lead(machine)

    # Before the connection the file is created if it is missing; after it there is nothing.
    assert told["opened"].count("sqlite3.connect") == 1
    assert told["opened"][-1] == "sqlite3.connect"
    assert told["control"] == ["open"]
    assert told["adopted"] == ["from the same file", "from another file", "hello"]
    assert told["ledger"]["purged"] + told["ledger"]["states"].get("dead", 0) > 0
    assert told["ledger"]["balanced"]


def test_a_database_that_is_named_like_the_other_is_adopted_once(machine: Machine):
    machine.environ["CLAUDE_PEERS_DB"] = str(machine.home / ".agentmesh.db")
    leave_upstream_database(machine.home / ".agentmesh.db", "only once")

    told = lead(machine)

    assert told["adopted"] == ["only once", "hello"]
    assert told["opened"].count("sqlite3.connect") == 1
