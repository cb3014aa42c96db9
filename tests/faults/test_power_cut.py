"""The power fails at any moment: what was accepted is there, and the database is whole."""

import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import pytest
from faults import accepting, power

MESSAGES = 60
SEED = 1

pytestmark = [
    pytest.mark.xdist_group("processes"),
    pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed"),
]


@pytest.fixture
def traced(tmp_path: Path, unmeasured: None):
    """Return what a store does to its disk while it accepts messages."""

    def record(synchronous: str = "") -> list[power.Event]:
        folder = tmp_path / "disk"
        folder.mkdir()
        trace = tmp_path / "trace"
        command = [sys.executable, accepting.__file__, str(folder / "m.db"), str(MESSAGES)]
        strace = ["strace", "-f", "-y", "-xx", "-s", "70000", "-e", f"trace={power.TRACED}"]
        subprocess.run([*strace, "-o", trace, *command, synchronous], check=True, timeout=100)
        return power.recorded(trace, folder)

    return record


def damage(events: Iterable[power.Event], folder: Path) -> tuple[int, int, int]:
    """Return how many cuts there were, and how many lost a message or broke the database."""
    made = lost = broken = 0
    for told, files in power.cuts(list(events), seed=SEED):
        made += 1
        stored, whole = after(files, folder)
        lost += not told <= stored
        broken += not whole
    return made, lost, broken


def after(files: power.Files, folder: Path) -> tuple[set[int], bool]:
    """Return the messages that are found when the power is back, and whether all is well."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for path, content in files.items():
        if not path.endswith("-shm"):  # it is made anew
            (folder / Path(path).name).write_bytes(content)
    db = sqlite3.connect(folder / "m.db")
    try:
        known = db.execute("SELECT 1 FROM sqlite_schema WHERE name = 'mail'").fetchone()
        stored = {row[0] for row in db.execute("SELECT id FROM mail")} if known else set()
        return stored, db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    except sqlite3.DatabaseError:
        return set(), False
    finally:
        db.close()


@pytest.mark.fault("F1")
def test_a_power_cut_loses_nothing_that_was_accepted(traced, tmp_path, tell):
    events = traced()
    assert sum(isinstance(event, power.Ack) for event in events) == MESSAGES
    made, lost, broken = damage(events, tmp_path / "found")
    tell(f"{made} cuts, {lost} lost an accepted message, {broken} broke the database")
    assert made > MESSAGES
    assert (lost, broken) == (0, 0)


@pytest.mark.fault("F1")
def test_the_replayer_sees_what_a_laxer_database_loses(traced, tmp_path, tell):
    made, lost, _ = damage(traced("NORMAL"), tmp_path / "found")
    tell(f"with synchronous=NORMAL {lost} of {made} cuts lose an accepted message")
    assert lost > made // 10
