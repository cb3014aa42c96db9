"""Every session of every recording is replayed by a test, or left out with a reason.

The table of `golden/README.md` says which is which, and is held to the recordings and to the tests.
"""

import re
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

import pytest
from support.golden import FOLDER, load

ROOT = FOLDER.parents[1]
FILES = sorted(
    str(each.relative_to(FOLDER)) for each in FOLDER.rglob("*.*") if each.name != "README.md"
)
_QUOTED = re.compile("`([^`]+)`")
_LEFT_OUT = "not replayed:"


@dataclass(frozen=True, slots=True)
class Row:
    """A line of the table.

    Attributes:
        files: a pattern of their names.
        replayed, left_out: sessions.
        modules: the tests that replay them.
    """

    files: str
    replayed: list[str]
    left_out: list[str]
    modules: list[str]


def read(line: str) -> Row:
    files, _, sessions, modules = (each.strip() for each in line.strip("| \n").split(" | "))
    replayed, _, left_out = sessions.partition(_LEFT_OUT)
    if left_out:
        assert re.search("`, [a-z]", left_out), f"no reason why {left_out} is left out"
    (pattern,) = _QUOTED.findall(files)
    names = [name for name in _QUOTED.findall(replayed) if not name.endswith(".jsonl")]
    return Row(pattern, names, _QUOTED.findall(left_out), _QUOTED.findall(modules))


TABLE = [
    read(line)
    for line in (FOLDER / "README.md").read_text("utf-8").splitlines()
    if line.startswith("| `")
]


def row_of(file: str) -> Row:
    found = [row for row in TABLE if fnmatch(file, row.files)]
    assert len(found) == 1, f"{file} is in {len(found)} rows of golden/README.md"
    return found[0]


def sessions_of(file: str) -> set[str]:
    return {each["session"] for each in load(file) if "session" in each}


@pytest.mark.parametrize("file", FILES)
def test_every_recording_is_in_the_table_with_all_its_sessions(file):
    row = row_of(file)
    recorded = sessions_of(file) if file.endswith(".jsonl") else set()
    assert {*row.replayed, *row.left_out} == recorded
    assert not {*row.replayed} & {*row.left_out}


@pytest.mark.parametrize("row", TABLE, ids=[row.files for row in TABLE])
def test_a_row_is_about_recordings_that_there_are(row):
    assert [file for file in FILES if fnmatch(file, row.files)]
    assert row.modules


@pytest.mark.parametrize("row", TABLE, ids=[row.files for row in TABLE])
def test_the_tests_that_are_named_replay_what_they_are_named_for(row):
    sources = [(ROOT / each).read_text("utf-8") for each in row.modules]
    start = row.files if "*" not in row.files else re.split("-[^-]*[*]|/", row.files)[0]
    assert all(f'"{start}' in source for source in sources)
    chosen = "".join(source for source in sources if '"session"]' in source or "session(" in source)
    if chosen:  # else all of it is replayed, whatever its sessions
        assert [name for name in row.replayed if f'"{name}"' not in chosen] == []


def test_only_files_of_the_repository_are_named():
    assert [each for row in TABLE for each in row.modules if not Path(ROOT / each).is_file()] == []
