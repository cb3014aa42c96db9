"""Claude Code's record of a session is believed as far as it goes, and stops nobody."""

import json
import os
from pathlib import Path

import pytest

from claude_peers.host import processes
from claude_peers.session import agent, record
from claude_peers.session.record import Activity, Record, config_folder, read

PID = 4242
FULL = {
    "pid": PID,
    "sessionId": "s-1",
    "cwd": "/r",
    "startedAt": 1778572448459,
    "procStart": "20095994",
    "version": "2.1.330",
    "peerProtocol": 1,
    "kind": "interactive",
    "entrypoint": "cli",
    "status": "idle",
    "statusUpdatedAt": 1778681861222,
    "messagingSocketPath": "/run/user/0/4242.sock",
    "peerFeatures": ["x"],
}


@pytest.fixture(autouse=True)
def started(monkeypatch: pytest.MonkeyPatch) -> dict[int, str]:
    """Return the start times of all processes, for the test to change."""
    times = {PID: "20095994"}
    monkeypatch.setattr(processes, "start_time", times.get)
    return times


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Return where the record belongs."""
    (tmp_path / "sessions").mkdir()
    return tmp_path / "sessions" / f"{PID}.json"


def look(file: Path) -> Record | None:
    return read(str(file.parent.parent), PID)


def leave(file: Path, told: object = None, **more: object) -> Path:
    """Write a record in place, as the client does; every one is newer than the last."""
    before = file.stat().st_mtime_ns if file.exists() else 1_000_000_000
    file.write_text(json.dumps({**FULL, **more} if told is None else told))
    os.utime(file, ns=(before + 1_000_000, before + 1_000_000))
    return file


def test_a_record_tells_what_the_client_tells(file):
    assert look(leave(file)) == Record(
        pid=PID,
        session_id="s-1",
        status="idle",
        status_at=1778681861.222,
        entrypoint="cli",
        version="2.1.330",
        socket_path="/run/user/0/4242.sock",
    )


def test_without_a_record_there_is_none(file):
    assert look(file) is None
    assert read("/no/such\0folder", PID) is None


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"{",
        json.dumps(FULL).encode()[:-20],
        b"\xff\xfe\x00",
        b"[" * 60_000,
        b"[]",
        b"null",
        b'"text"',
        b'{"pid": 1' + b"0" * 5000 + b"}",
        json.dumps({**FULL, "cwd": "x" * 70_000}).encode(),
    ],
    ids=lambda text: repr(text[:12]),
)
def test_what_is_no_record_is_none(file, text):
    file.write_bytes(text)
    assert look(file) is None


@pytest.mark.parametrize("pid", [None, 1, "4242", 4242.0, True, [PID]], ids=repr)
def test_a_record_of_no_or_another_process_is_none(file, pid):
    assert look(leave(file, pid=pid)) is None


def test_a_folder_in_its_place_is_none(file):
    file.mkdir()
    assert look(file) is None


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no named pipes")
def test_a_pipe_in_its_place_stops_nobody(file):
    os.mkfifo(file)
    assert look(file) is None


@pytest.mark.parametrize("value", [None, 7, 1.5, True, [], {}, "", "a\nb", "\ud800"], ids=ascii)
def test_a_field_of_another_kind_is_not_there(file, value):
    names = ("sessionId", "status", "entrypoint", "version", "messagingSocketPath", "procStart")
    assert look(leave(file, **dict.fromkeys(names, value))) == Record(
        pid=PID, status_at=1778681861.222
    )


@pytest.mark.parametrize(
    "value", [None, "1778681861222", True, 0, -5, 1e300, 10**400, float("nan"), float("inf"), {}]
)
def test_a_time_that_is_none_is_not_there(file, value):
    assert look(leave(file, statusUpdatedAt=value)).status_at is None


def test_an_old_record_of_few_fields_is_believed(file):
    assert look(leave(file, {"pid": PID, "sessionId": "s"})) == Record(pid=PID, session_id="s")


# Whose it is


def test_a_record_that_another_process_with_that_pid_left_is_none(file, started):
    leave(file)
    started[PID] = "20095995"
    assert look(file) is None


def test_a_record_of_a_process_that_is_gone_is_none(file, started):
    leave(file)
    del started[PID]
    assert look(file) is None


@pytest.mark.parametrize(
    ("told", "ours"),
    [("Mon Aug  4 12:00:00 2026", "77af01c"), ("133979211", "1754309000.25"), (None, "5")],
)
def test_start_times_that_cannot_be_compared_are_not(file, started, told, ours):
    started[PID] = ours
    assert look(leave(file, procStart=told)) is not None


def test_our_own_start_time_is_the_one_the_client_would_write(file, monkeypatch):
    monkeypatch.undo()
    mine = processes.start_time(os.getpid())
    own = file.with_name(f"{os.getpid()}.json")
    leave(own, pid=os.getpid(), procStart=mine)
    assert read(str(file.parent.parent), os.getpid()) is not None


def test_the_folder_is_the_users_choice_or_under_home(monkeypatch):
    monkeypatch.setenv("HOME", "/h")
    monkeypatch.setenv("USERPROFILE", "/h")
    assert config_folder({"CLAUDE_CONFIG_DIR": "/c"}) == "/c"
    assert config_folder({"CLAUDE_CONFIG_DIR": ""}) == os.path.expanduser("~/.claude")
    assert config_folder({}).startswith("/h")


# What the agent is doing


@pytest.mark.parametrize(
    ("status", "state"),
    [
        ("idle", "idle"),
        ("shell", "idle"),
        ("busy", "busy"),
        ("waiting", "busy"),
        ("dreaming", ""),
        (None, ""),
    ],
)
def test_a_status_is_idle_or_busy_or_unknown(file, status, state):
    activity = Activity(str(leave(file, status=status).parent.parent), PID)
    assert activity.state == state
    assert activity.idle_since == (1778681861.222 if state == "idle" else None)


def test_without_a_record_nobody_knows_what_the_agent_does(file):
    for folder in (str(file.parent.parent), "a\0b"):
        activity = Activity(folder, PID)
        assert (activity.state, activity.idle_since) == ("", None)


def test_activity_follows_the_record(file):
    activity = Activity(str(file.parent.parent), PID)
    told = [activity.state]
    for status in ("busy", "idle", "busy"):
        leave(file, status=status)
        told.append(activity.state)
    file.unlink()
    assert [*told, activity.state] == ["", "busy", "idle", "busy", ""]


def test_a_record_is_read_again_only_when_it_has_changed(file, monkeypatch):
    reads = []
    monkeypatch.setattr(record, "read", lambda folder, pid: reads.append(pid) or read(folder, pid))
    activity = Activity(str(leave(file).parent.parent), PID)
    assert [activity.state for _ in range(5)] == ["idle"] * 5
    assert activity.idle_since
    assert len(reads) == 1
    leave(file, status="busy")
    assert activity.state == "busy"
    assert len(reads) == 2


def test_a_record_that_is_being_written_is_read_again(file):
    activity = Activity(str(leave(file).parent.parent), PID)
    assert activity.state == "idle"
    whole = file.read_bytes()
    file.write_bytes(whole[:-20] + b" " * 20)
    torn = file.stat()
    assert activity.state == ""
    file.write_bytes(whole)
    os.utime(file, ns=(torn.st_atime_ns, torn.st_mtime_ns))
    assert activity.state == "idle"


# What the agent's finder makes of it


def test_the_agent_carries_its_record(file, monkeypatch):
    monkeypatch.setattr(processes, "ancestors", lambda pid, most: [PID])
    leave(file)
    found = agent.find({"name": "claude-code"}, {"CLAUDE_CONFIG_DIR": str(file.parent.parent)})
    assert (found.pid, found.session_id, found.entrypoint) == (PID, "s-1", "cli")
    assert found.record == look(file)


def test_a_record_of_an_earlier_process_does_not_make_an_ancestor_the_agent(
    file, monkeypatch, started
):
    monkeypatch.setattr(processes, "ancestors", lambda pid, most: [PID])
    started[PID] = "1"
    environ = {
        "CLAUDE_CONFIG_DIR": str(leave(file).parent.parent),
        "CLAUDE_CODE_SESSION_ID": "outer",
        "CLAUDE_CODE_ENTRYPOINT": "cli",
    }
    found = agent.find({"name": "claude-code"}, environ)
    assert (found.matched, found.session_id, found.entrypoint) == (False, None, "")
    assert found.record is None


def test_what_a_record_leaves_out_the_environment_of_that_agent_tells(file, monkeypatch):
    monkeypatch.setattr(processes, "ancestors", lambda pid, most: [PID])
    environ = {
        "CLAUDE_CONFIG_DIR": str(leave(file, {"pid": PID}).parent.parent),
        "CLAUDE_CODE_SESSION_ID": "s-2",
        "CLAUDE_CODE_ENTRYPOINT": "sdk-cli",
    }
    found = agent.find({"name": "claude-code"}, environ)
    assert (found.session_id, found.entrypoint) == ("s-2", "sdk-cli")
