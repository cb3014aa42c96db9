"""What the hooks of Claude Code are for each of its versions, and what a call of one answers."""

import json

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from claude_peers.wire import hooks

WAKING = ["SessionStart", "Stop"]
ALL = [*WAKING, "StopFailure", "UserPromptSubmit", "PostToolBatch", "PreToolUse"]


def entries(settings):
    """Return event, matcher and entry of every hook."""
    return [
        (event, group.get("matcher"), entry)
        for event, groups in settings["hooks"].items()
        for group in groups
        for entry in group["hooks"]
    ]


@pytest.mark.parametrize(
    ("told", "version"),
    [
        ("2.1.330 (Claude Code)\n", (2, 1, 330)),
        ("2.1.80", (2, 1, 80)),
        ("3.0.0\nanother line", (3, 0, 0)),
        ("2.1.118-beta.1 (Claude Code)", None),
        ("claude 2.1.330", None),
        ("2.1", None),
        ("", None),
        ("garbage", None),
    ],
)
def test_a_version_is_read_only_from_what_claude_code_prints(told, version):
    assert hooks.version(told) == version


@pytest.mark.parametrize(
    ("version", "events"),
    [
        (None, WAKING),
        ((2, 1, 79), []),
        ((2, 1, 80), WAKING),
        ((2, 1, 117), WAKING),
        ((2, 1, 118), ALL),
        ((2, 1, 330), ALL),
        ((3, 0, 0), ALL),
    ],
)
def test_no_version_is_given_an_event_or_a_kind_of_hook_that_it_may_not_know(version, events):
    settings = hooks.settings("/s", "claude-peers", version)
    assert list(settings) == ["hooks"]
    assert list(settings["hooks"]) == events
    kinds = {entry["type"] for _, _, entry in entries(settings)}
    assert kinds <= ({"command", "mcp_tool"} if events == ALL else {"command"})


@pytest.mark.parametrize(("version", "events"), [(None, []), ((2, 1, 117), []), ((2, 1, 118), ALL)])
def test_without_fifos_nothing_waits(version, events):
    settings = hooks.settings(None, "claude-peers", version)
    assert list(settings["hooks"]) == [each for each in events if each in ALL[3:]]


def test_the_tool_is_called_on_the_server_of_the_users_name():
    found = entries(hooks.settings("/s", "plugin:peers:p 1", hooks.EVERYTHING))
    assert {entry["server"] for event, _, entry in found if event in ALL[3:]} == {
        "plugin:peers:p 1"
    }
    assert [matcher for _, matcher, _ in found if matcher] == ["mcp__plugin_peers_p_1__.*"]


def test_the_tool_learns_what_it_needs_to_know():
    entry = hooks.caller("claude-peers")
    assert (entry["type"], entry["tool"], entry["timeout"]) == ("mcp_tool", "hook", 2)
    assert entry["input"] == {
        "event": "${hook_event_name}",
        "session_id": "${session_id}",
        "cwd": "${cwd}",
        "agent_id": "${agent_id}",
        "tool_use_id": "${tool_use_id}",
        "prompt": "${prompt}",
    }


def test_the_waiter_runs_in_the_background_for_a_week_and_wakes():
    entry = hooks.waiter("/s")
    assert (entry["type"], entry["asyncRewake"], entry["timeout"]) == ("command", True, 604800)
    assert "/s/wake/${CLAUDE_PID:-$PPID}" in entry["command"]
    assert hooks.fifo("/s", 7) == "/s/wake/7"


@pytest.mark.parametrize("entry", [hooks.waiter("/a b"), hooks.caller("x"), hooks.caller("y:z")])
def test_ours_is_known_whatever_was_chosen(entry):
    assert hooks.is_ours(entry)
    assert hooks.is_ours(json.loads(json.dumps({**entry, "timeout": 5})))


@pytest.mark.parametrize(
    "entry",
    [
        None,
        "claude-peers",
        [],
        {},
        {"type": "command"},
        {"type": "command", "command": None},
        {"type": "command", "command": "claude-peers send boss done"},
        {"type": "command", "command": "echo ': claude-peers wake;'"},
        {"type": "mcp_tool", "server": "claude-peers", "tool": "list_peers"},
        {"type": "mcp_tool", "server": "other", "tool": "hook"},
        {"type": "mcp_tool", "server": "other", "tool": "hook", "input": {"event": "x"}},
        {"type": "mcp_tool", "server": "other", "tool": "hook", "input": "event"},
        {"type": "http", "url": "http://127.0.0.1:7899/hook"},
    ],
)
def test_what_the_user_wrote_is_not_ours(entry):
    assert not hooks.is_ours(entry)


def test_an_entry_of_ours_may_have_lost_its_arguments():
    assert hooks.is_ours({"type": "mcp_tool", "server": "claude-peers", "tool": "hook"})


def test_silence_is_an_empty_object_and_nothing_else():
    assert hooks.silent() == "{}"


def told(block):
    output = json.loads(block)["hookSpecificOutput"]
    assert list(output) == ["hookEventName", "additionalContext"]
    return output["hookEventName"], output["additionalContext"]


def units(text):
    """Count characters as JavaScript does."""
    return len(text.encode("utf-16-le", "surrogatepass")) // 2


@example("three new messages")
@given(st.text(max_size=300))
def test_what_fits_is_told_whole(text):
    assert hooks.fits("PostToolBatch", text)
    assert told(hooks.context("PostToolBatch", text)) == ("PostToolBatch", text)


@given(st.text(min_size=1, max_size=20), st.integers(0, 12_000))
def test_an_answer_never_reaches_the_size_at_which_it_would_become_a_file(piece, size):
    text = piece * (size // len(piece))
    block = hooks.context("UserPromptSubmit", text)
    assert units(block) < 9_500
    event, shown = told(block)
    assert event == "UserPromptSubmit"
    if hooks.fits(event, text):
        assert shown == text
    else:
        start, note = shown.split("\n[cut: ")
        assert text.startswith(start)
        assert note == "call check_messages for the rest]"
        assert units(block) > 9_500 - 14, "more would have fitted"


@pytest.mark.parametrize("character", ["a", "\n", "ü", "\U0001f389", "\x01", "\ud800"])
def test_a_text_is_cut_by_the_size_of_the_answer_not_by_its_own(character):
    block = hooks.context("PostToolBatch", character * 1_000_000)
    assert 9_480 < units(block) < 9_500
    assert told(block)[1].endswith("[cut: call check_messages for the rest]")
