"""What the light paths load, as start-up and memory depend on it; importing alone does nothing."""

import json
import os
import signal
import subprocess
import sys

import pytest
from support.machine import Machine
from support.mcp import Session
from support.waiting import eventually

pytestmark = [pytest.mark.processes, pytest.mark.xdist_group("processes")]

HEAVY_FOR_A_COMMAND = {
    *("mcp", "sqlite3", "asyncio", "psutil", "filelock", "platformdirs"),
    *("ssl", "_hashlib"),
}
HEAVY_FOR_A_FOLLOWER = {
    *("psutil", "filelock", "platformdirs", "sqlite3", "h11", "mcp", "pydantic"),
    *("ssl", "_hashlib", "random"),
}
COMMAND = """
import json, sys
from claude_peers.__main__ import main
try:
    main()
except SystemExit as end:
    code = end.code
print(json.dumps({"code": code, "modules": sorted(sys.modules)}), file=sys.stderr)
"""
SESSION = """
import os, signal, sys

def tell(*_):
    with open(os.environ["MODULES"] + ".new", "w") as file:
        file.write(" ".join(sys.modules))
    os.replace(file.name, os.environ["MODULES"])

signal.signal(signal.SIGUSR1, tell)
from claude_peers.__main__ import main
main()
"""
IMPORTS = """
import importlib, json, pkgutil, sys, threading

DOINGS = (
    "socket.", "subprocess.", "os.mkdir", "os.rename", "os.remove", "os.system", "os.fork",
    "_thread.start", "sqlite3.", "signal.", "shutil.", "tempfile.",
)
done, ours = [], False

def hook(event, arguments):
    writes = event == "open" and isinstance(arguments[1], str) and set(arguments[1]) & set("wax+")
    if ours and (writes or event.startswith(DOINGS)):
        done.append(f"{event} {arguments[:2]}")

import claude_peers
names = sorted(
    found.name
    for found in pkgutil.walk_packages(claude_peers.__path__, "claude_peers.")
)
# What others do when they are imported is not ours to promise.
import asyncio, concurrent.futures, filelock, h11, logging, multiprocessing, psutil, sqlite3, ssl
import mcp.server.lowlevel, mcp.server.stdio, platformdirs, subprocess, tempfile, urllib.request
sys.addaudithook(hook)
ours = True
before = list(sys.path), sys.getswitchinterval(), threading.active_count()
for name in names:
    importlib.import_module(name)
after = list(sys.path), sys.getswitchinterval(), threading.active_count()
handlers = importlib.import_module("logging").getLogger("claude_peers").handlers
print(json.dumps({
    "names": names, "done": done, "same": before == after, "handlers": len(handlers),
    "control": (open(sys.argv[1], "w").close(), len(done))[1],
}))
"""


@pytest.fixture
def machine(machine: Machine) -> Machine:
    """Return a machine on which coverage, which loads a lot, does not measure."""
    for name in machine.environ:
        if name.startswith("COVERAGE_"):
            machine.environ[name] = None
    return machine


def loaded(names: list[str], heavy: set[str]) -> set[str]:
    return heavy & {name.partition(".")[0] for name in names}


@pytest.mark.parametrize(
    "words", [["status"], ["peers"], ["send", "me", "hello"], ["cli", "status", "--json"]]
)
def test_a_command_stays_light(machine: Machine, words):
    machine.serve()
    if "send" in words:
        words = ["send", machine.post("/register", {"pid": os.getpid(), "cwd": "/"})["id"], "hi"]

    result = subprocess.run(
        [sys.executable, "-c", COMMAND, *words],
        env=machine.environment(),
        cwd=machine.work,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    told = json.loads(result.stderr.splitlines()[-1])

    assert told["code"] == 0, result
    assert loaded(told["modules"], HEAVY_FOR_A_COMMAND) == set()


def observed(machine: Machine) -> Session:
    """Start a session that tells which modules it has loaded."""
    number = len(machine.sessions)
    session = Session(
        [sys.executable, "-c", SESSION],
        environ=machine.environment(MODULES=str(machine.root / f"modules{number}")),
        cwd=machine.folder(f"s{number}"),
        log=machine.root / f"session{number}.stderr",
    )
    machine.sessions.append(session)
    session.initialize()
    session.list_prompts()
    machine.peer_id(session)
    return session


def modules_of(machine: Machine, session: Session) -> list[str]:
    told = machine.root / f"modules{machine.sessions.index(session)}"
    session.kill(signal.SIGUSR1)
    eventually(told.exists, what="the list of modules")
    names = told.read_text().split()
    told.unlink()
    return names


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere psutil tells about processes")
def test_a_follower_stays_small(machine: Machine):
    leader, standby, follower = (observed(machine) for _ in range(3))
    follower.call("list_peers")
    follower.call("send_message", to_id=machine.peer_id(leader), message="hello")
    leader.call("send_message", to_id=machine.peer_id(follower), message="hello")
    follower.wait_for_push("hello")
    follower.call("check_messages")
    follower.call("set_summary", summary="small")

    assert loaded(modules_of(machine, follower), HEAVY_FOR_A_FOLLOWER) == set()
    expected = {"filelock", "random", "sqlite3", "h11"}  # filelock loads random
    assert loaded(modules_of(machine, leader), HEAVY_FOR_A_FOLLOWER) == expected
    eventually(
        lambda: loaded(modules_of(machine, standby), HEAVY_FOR_A_FOLLOWER) == expected,
        what="the standby's preparation",
    )


@pytest.mark.bug("P9")
def test_importing_a_module_does_nothing(machine: Machine):
    result = subprocess.run(
        [sys.executable, "-B", "-c", IMPORTS, str(machine.root / "control")],
        env=machine.environment(),
        cwd=machine.work,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    told = json.loads(result.stdout)

    assert told["done"][:-1] == []
    assert told["control"] == 1  # the hook does see what is done
    assert told["same"]
    assert told["handlers"] == 0
    assert {"claude_peers.node.leader", "claude_peers.session.sdk"} < set(told["names"])
    assert result.stderr == ""
    assert list(machine.home.iterdir()) == list(machine.work.iterdir()) == []
