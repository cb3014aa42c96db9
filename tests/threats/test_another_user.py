"""Two users of one machine: neither gets anything of the other's, in either direction."""

import json
import os
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from support import http
from support.clients import LINUX, NOBODY, ROOT, Client
from support.inproc import LiveWire, Wire, upgrade
from support.machine import Machine
from threats.naive import naive

pytestmark = [ROOT, LINUX]
CANARY = "canary-5f1d"
OTHER = """
import json, os, sys
os.setgroups([])
os.setgid({uid})
os.setuid({uid})
for path in sys.argv[1:]:
    for flags in (os.O_RDONLY, os.O_WRONLY):
        try:
            os.close(os.open(path, flags))
            print(json.dumps([path, flags]))
        except (PermissionError, IsADirectoryError):
            pass
    try:
        print(json.dumps([path, os.listdir(path)]))
    except (PermissionError, NotADirectoryError):
        pass
"""
"""A process of another user that opens what it can, and tells what that was."""
BROKER = """
import os, sys
from support.inproc import LiveWire, Wire, running  # all of it, while it can be read
from claude_peers.gateway import live
os.setgroups([])
os.setgid({uid})
os.setuid({uid})
with running() as broker, Wire(broker.port) as wire:
    me = wire.ask("/register", {{"summary": "mine"}})[1]["id"]
    wire.ask("/send-message", {{"from_id": "cli", "to_id": me, "text": "{canary}"}})
    print(broker.port, me, flush=True)
    sys.stdin.read()
    mail = wire.ask("/peek-messages", {{"id": me}})[1]["messages"]
    assert [each["text"] for each in mail] == ["{canary}"]
    assert [row["id"] for row in wire.ask("/list-peers")[1]] == [me]
"""
"""A broker of another user, with a peer that has mail."""
ASKED = {
    "list": ("/list-peers", {}),
    "poll": ("/poll-messages", {"id": "$ID"}),
    "peek": ("/peek-messages", {"id": "$ID"}),
    "send": ("/send-message", {"from_id": "cli", "to_id": "$ID", "text": "obey"}),
    "register": ("/register", {"summary": "spy"}),
    "end the broker": ("/admin/step-down", {}),
    "read the history": ("/history", {}),
    "ask for health": ("/health", None),
    "ask for status": ("/status", None),
    "connect": ("/live", None),
}


@pytest.fixture(scope="module")
def served() -> Iterator[Machine]:
    """Return a machine whose folder anybody may enter, and whose broker has umask 000."""
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o777)  # so that only what the product does protects it
        machine = Machine(Path(folder) / "machine")
        for each in (machine.root, machine.home, machine.work):
            each.chmod(0o777)
        machine.prefix = ("sh", "-c", 'umask 000; exec "$@"', "sh")
        try:
            machine.serve()
            yield machine
        finally:
            machine.close()


def is_told_whose_it_is(status: int, told: dict[str, str]) -> None:
    """Fail unless an answer is the refusal of another user, and tells nothing else."""
    assert (status, told["code"]) == (401, "other_user")
    assert set(told) == {"error", "code", "remedy"}
    assert CANARY not in json.dumps(told)


@pytest.mark.threat("T10")
@pytest.mark.parametrize("act", ASKED)
def test_another_user_is_refused_whatever_it_asks_for(served, act):
    me = served.post("/register", {"summary": "mine"})["id"]
    served.post("/send-message", {"from_id": "cli", "to_id": me, "text": CANARY})
    before = [row["id"] for row in served.peers()]
    path, body = ASKED[act]
    given = None if body is None else json.loads(json.dumps(body).replace("$ID", me))
    with Client(served.port, NOBODY) as other:
        is_told_whose_it_is(*other.ask(path, given))
    assert [each["text"] for each in served.post("/peek-messages", {"id": me})["messages"]] == [
        CANARY
    ]
    assert [row["id"] for row in served.peers()] == before
    assert served.broker == served.processes[0].pid


@pytest.mark.threat("T10")
def test_a_broker_that_asks_nobody_who_they_are_serves_every_user():
    with naive() as (port, broker), Client(port, NOBODY) as other:
        you = broker.register({"summary": "mine"})["id"]
        broker.send_message({"from_id": "friend", "to_id": you, "text": CANARY})
        assert [row["id"] for row in other.ask("/list-peers", {})[1]] == [you]
        assert other.ask("/poll-messages", {"id": you})[1]["messages"][0]["text"] == CANARY
        assert broker.mail == []


@pytest.mark.bug("U17")
@pytest.mark.threat("T10", "T12")
def test_another_user_opens_no_file_of_a_broker(served):
    me = served.post("/register", {"name": "canary"})["id"]
    served.post("/send-message", {"from_id": "cli", "to_id": me, "text": CANARY})
    assert served.cli("peers").returncode == 0
    ours = kept(served)
    names = {path.name for path in ours}
    assert {"secret", ".claude-peers.db", ".claude-peers.db-wal"} <= names
    assert opened_by_another_user(ours) == []
    modes = {path: stat.S_IMODE(path.lstat().st_mode) for path in ours}
    assert {
        path: oct(mode) for path, mode in modes.items() if mode & 0o077
    } == {}  # each by itself, also where the folder around it was opened


@pytest.mark.threat("T12")
def test_files_that_are_simply_created_are_everybodys(tmp_path_factory):
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o777)  # as above
        before = os.umask(0)
        try:
            naive = Path(folder) / "peers.db"
            naive.write_text(CANARY)
        finally:
            os.umask(before)
        assert [path for path, _ in opened_by_another_user([naive])] == [str(naive)] * 2


@pytest.mark.threat("T10")
@pytest.mark.parametrize("act", ASKED)
def test_this_user_is_refused_by_the_broker_of_another_even_as_root(another_users_broker, act):
    port, peer = another_users_broker
    path, body = ASKED[act]
    if path == "/live":
        with LiveWire(port) as live:
            live.send(upgrade(port))
            status, _, told = live.answer()
            is_told_whose_it_is(status, json.loads(told))
    elif body is None:
        answer = http.get(port, path)
        is_told_whose_it_is(answer.status, answer.json())
    else:
        with Wire(port) as wire:
            given = json.loads(json.dumps(body).replace("$ID", peer))
            is_told_whose_it_is(*wire.ask(path, given))


def kept(machine: Machine) -> list[Path]:
    """Return every file and folder the product has made."""
    found = [each for each in machine.home.rglob("*") if not each.is_symlink()]
    assert found
    return found


def opened_by_another_user(paths: list[Path]) -> list[list[object]]:
    """Return which of these another user could open, or list, and how."""
    done = subprocess.run(
        [sys.executable, "-c", OTHER.format(uid=NOBODY), *map(str, paths)],
        capture_output=True,
        text=True,
        check=True,
    )
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.fixture(scope="module")
def another_users_broker() -> Iterator[tuple[int, str]]:
    """Serve a broker as another user; its mail and its roster must be untouched at the end."""
    tests = Path(__file__).resolve().parents[1]
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tests), str(tests.parent)])}
    process = subprocess.Popen(
        [sys.executable, "-c", BROKER.format(uid=NOBODY, canary=CANARY)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environ,
    )
    assert process.stdin is not None and process.stdout is not None
    try:
        port, peer = process.stdout.readline().split()
        yield int(port), peer
    finally:
        process.communicate(timeout=30)
    assert process.returncode == 0
