"""A store's system calls fail, or are its last: what was accepted is there afterwards."""

import asyncio
import re
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
from faults import accepting

from claude_peers.core.models import Process
from claude_peers.stores.sqlite.store import SqliteStore

MESSAGES = 12
KILLED, DISK_ERROR = 137, 1
BEGINNING = {"pwrite64": (2, 9, 23), "fdatasync": (2, 4), "ftruncate": (1,)}
"""Calls with which the database is made, and the tables in it."""
SENDING = {"pwrite64": (*range(40, 75, 5), 90, 120), "fdatasync": (6, 8, 9, 12), "write": (2, 5)}
"""Calls of a send and of a checkpoint: of the log, of the database, and of the answer."""
CHANGING = ("openat", "fcntl", "pwrite64", "fdatasync", "ftruncate", "unlink", "write")
"""Calls that change a file, its locks or what others see of it."""
POINTS = [
    (call, at) for calls in (BEGINNING, SENDING) for call, all_ in calls.items() for at in all_
]

pytestmark = [
    pytest.mark.xdist_group("processes"),
    pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed"),
]


def accept_with(path: Path, *injections: str) -> tuple[int, set[int], str]:
    """Let a process accept messages and its calls fail; return its end, what it told, and why."""
    traced = [f"--inject={each}" for each in injections]
    calls = ",".join(re.split("[:]", each)[0] for each in injections)
    strace = ["strace", "-f", "-o", "/dev/null", f"--trace={calls}", *traced]
    command = [sys.executable, accepting.__file__, str(path), str(MESSAGES)]
    done = subprocess.run(
        [*strace, *command], check=False, capture_output=True, text=True, timeout=60
    )
    told = {int(line.split()[1]) for line in done.stdout.splitlines() if line.startswith("ACK ")}
    return done.returncode, told, done.stderr


def stored(path: Path) -> set[int]:
    """Return what a broker finds there that starts afterwards."""

    async def begin() -> None:
        async with SqliteStore(str(path)) as store:
            await store.take_office(Process(pid=2, started="2"), now=0.0)
            assert (await store.ledger()).balanced

    asyncio.run(begin())
    with closing(sqlite3.connect(path)) as db:
        assert db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        return {row[0] for row in db.execute("SELECT id FROM mail")}


@pytest.mark.parametrize(("call", "at"), POINTS)
@pytest.mark.fault("F1", "F23")
def test_a_kill_at_any_system_call_loses_nothing_that_was_accepted(tmp_path, unmeasured, call, at):
    path = tmp_path / "m.db"
    code, told, _ = accept_with(path, f"{call}:signal=SIGKILL:when={at}")
    assert code != 0 or len(told) == MESSAGES  # it was killed, or made no such call so often
    found = stored(path)
    assert told <= found
    assert len(found - told) <= 1  # one may be there that nobody was told of


def calls_of_each_send(path: Path) -> list[list[tuple[str, int]]]:
    """Return for each send its calls that change a file or tell somebody.

    A call is its name and how many of that name there have been by then.
    """
    log = path.with_suffix(".log")
    strace = ["strace", "-f", "-o", str(log), f"--trace={','.join(CHANGING)}"]
    command = [sys.executable, accepting.__file__, str(path), str(MESSAGES)]
    subprocess.run([*strace, *command], check=True, capture_output=True, timeout=60)
    counts = dict.fromkeys(CHANGING, 0)
    sends: list[list[tuple[str, int]]] = [[]]
    for line in log.read_text().splitlines():
        call = re.match(r"\d+ +(\w+)\(", line)
        if call is None:  # the second half of a call that was interrupted by another thread's
            continue
        counts[call[1]] += 1
        sends[-1].append((call[1], counts[call[1]]))
        if 'write(1, "ACK ' in line:
            sends.append([])
    assert len(sends) == MESSAGES + 1
    return sends[:MESSAGES]


@pytest.mark.fault("F1")
@pytest.mark.timeout(240)
def test_a_kill_at_each_system_call_of_two_sends_and_a_checkpoint_loses_nothing(
    tmp_path, unmeasured, tell
):
    sends = calls_of_each_send(tmp_path / "first.db")
    flushes = [sum(name == "fdatasync" for name, _ in calls) for calls in sends]
    plain = next(n for n in range(3, MESSAGES) if flushes[n] == 1)
    copies = next(n for n in range(3, MESSAGES) if flushes[n] > 1)  # of the log into the database
    calls = sends[plain] + sends[copies]
    assert {"pwrite64", "write", "fcntl"} <= {name for name, _ in calls}
    cut_short = 0
    for number, (call, at) in enumerate(calls):
        path = tmp_path / f"{number}.db"
        _, told, _ = accept_with(path, f"{call}:signal=SIGKILL:when={at}")
        found = stored(path)
        assert told <= found, (call, at)
        assert len(found - told) <= 1, (call, at)
        cut_short += len(told) in (plain, copies)
        for each in tmp_path.glob(f"{number}.db*"):
            each.unlink()
    tell(f"killed at each of {len(calls)} calls of a send and of one with a checkpoint: 0 lost")
    assert cut_short > len(calls) / 2  # two runs may differ by a call or two


@pytest.mark.parametrize(
    ("injection", "words"),
    [
        ("fsync,fdatasync:error=EIO:when=14+", "disk I/O error"),
        ("pwrite64:error=ENOSPC:when=120+", "full"),
    ],
    ids=["a failing disk", "a full disk"],
)
@pytest.mark.fault("F16", "F17")
def test_a_disk_that_fails_refuses_and_keeps_what_was_accepted(
    tmp_path, unmeasured, injection, words
):
    path = tmp_path / "m.db"
    code, told, why = accept_with(path, injection)
    assert code == DISK_ERROR
    assert words in why
    assert 0 < len(told) < MESSAGES
    assert told <= stored(path)
