"""Sending from the command line: what is stored, what is refused, and with which exit code."""

import io
import os
import subprocess

import pytest
from support.machine import command

from claude_peers.cli.commands import send
from claude_peers.core.limits import TEXT


@pytest.fixture
def peer(machine):
    """Return a session called alpha behind a broker of its own, and its id."""
    machine.serve()
    session = machine.session(CLAUDE_PEERS_NAME="alpha")
    session.list_prompts()
    session.peer_id = machine.peer_id(session)
    return session


def test_a_stored_message_is_success_and_arrives(cli, peer):
    ran = cli("send", "alpha", "hello", "there", "\U0001f389")
    assert (ran.code, ran.out) == (0, f"Message sent to {peer.peer_id}\n")
    assert ran.err == (
        "alpha has no push route: it reads this when it checks its messages.\n"
        "What becomes of it: claude-peers why 1\n"
    )
    text, _ = peer.call("check_messages")
    assert "From cli" in text
    assert text.endswith("hello there \U0001f389")


@pytest.mark.parametrize("target", ["id", "name", "name@host", "directory"])
def test_a_peer_goes_by_id_name_host_or_directory(cli, machine, peer, target):
    host = machine.peers()[0]["hostname"]
    named = {
        "id": peer.peer_id,
        "name": "alpha",
        "name@host": f"alpha@{host}",
        "directory": str(machine.folder("s0")),
    }[target]
    for words in ((), ("--require-live",)):
        ran = cli("send", *words, named, "hi")
        assert (ran.code, ran.out) == (0, f"Message sent to {peer.peer_id}\n")


def test_json_is_the_brokers_answer(cli, peer):
    ran = cli("send", "--json", "alpha", "hi")
    assert (ran.code, ran.err) == (0, "")
    assert ran.value["ok"] is True
    assert ran.value["to_id"] == peer.peer_id
    assert ran.value["state"] == "queued"


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (("alpha", "a", "--", "--json", "-x"), "a --json -x"),
        (("alpha", "--", "git", "checkout", "--", "file"), "git checkout -- file"),
        (("alpha", "--", "-"), "-"),
        (("alpha", "--", "--"), "--"),
        (("alpha", "-", "b"), "- b"),
        (("alpha", "--reply-to", "7", "late", "--json"), "late"),
        (("--json", "alpha", "two", "--reply-to", "7", "parts"), "two parts"),
        (("alpha", "a  b\nc"), "a  b\nc"),
    ],
)
def test_words_after_two_dashes_are_the_message_whatever_they_look_like(cli, peer, words, text):
    assert cli("send", *words).code == 0
    shown, _ = peer.call("check_messages")
    assert shown.endswith(f":\n{text}")


def test_a_message_may_answer_another(cli, peer):
    cli("send", "alpha", "answer", "--reply-to", "7")
    assert "reply to 7" in peer.call("check_messages")[0]


def given(monkeypatch, raw):
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(raw)))


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        (b"from a pipe\nwith lines\n", "from a pipe\nwith lines\n"),
        ("ü \U0001f389".encode(), "ü \U0001f389"),
        (b"bad \xff byte", "bad � byte"),
    ],
)
def test_a_single_dash_reads_the_message_from_stdin(cli, peer, monkeypatch, raw, text):
    given(monkeypatch, raw)
    assert cli("send", "alpha", "-").code == 0
    assert peer.call("check_messages")[0].endswith(text)


def test_the_longest_text_goes_through_and_one_byte_more_is_refused(cli, peer, monkeypatch):
    given(monkeypatch, b"x" * TEXT)
    assert cli("send", "alpha", "-").code == 0
    for raw in (b"x" * (TEXT + 1), "é".encode() * TEXT):
        given(monkeypatch, raw)
        ran = cli("send", "--json", "alpha", "-")
        assert (ran.code, ran.out) == (1, "")
        assert ran.error["code"] == "text_too_long"
        assert "file" in ran.error["remedy"]


def test_the_message_on_stdin_is_in_no_command_line(cli, peer, monkeypatch):
    given(monkeypatch, b"canary")
    told = []
    monkeypatch.setattr(
        send.Broker, "ask", lambda _self, _path, body, **_: told.append(body) or body
    )
    cli("send", "alpha", "-")
    assert told[0]["text"] == "canary"
    assert told[0]["dedupe_key"]


@pytest.mark.parametrize("words", [("alpha", ""), ("alpha",), ("alpha", "-")])
def test_an_empty_message_is_a_usage_error(cli, monkeypatch, words):
    given(monkeypatch, b"")
    ran = cli("send", *words)
    assert (ran.code, ran.out) == (2, "")
    assert "Usage: claude-peers send PEER MESSAGE" in ran.err


def test_a_closed_stdin_is_an_empty_message(machine):
    reading, writing = os.pipe()
    os.close(reading)
    ran = subprocess.run(
        ["/bin/sh", "-c", 'exec "$@" <&-', "sh", *command(), "send", "alpha", "-"],
        capture_output=True,
        text=True,
        env=machine.environment(),
        cwd=machine.work,
        timeout=60,
        check=False,
    )
    os.close(writing)
    assert ran.returncode == 2
    assert "The message is empty" in ran.stderr


@pytest.mark.bug("U19")
def test_without_a_broker_nothing_is_claimed(cli):
    ran = cli("send", "alpha", "hi")
    assert (ran.code, ran.out) == (6, "")
    assert "No broker is running" in ran.err


@pytest.mark.bug("U19")
def test_an_unknown_peer_is_a_failure_that_scripts_notice(cli, machine):
    machine.serve()
    ran = cli("send", "zzzzzzzz", "hi")
    assert (ran.code, ran.out) == (4, "")
    assert ran.err.startswith("Failed: Peer zzzzzzzz not found\n")


def test_of_several_peers_the_candidates_are_named_and_nothing_is_sent(cli, machine, peer):
    other = machine.session(cwd=machine.folder("s0"), CLAUDE_PEERS_NAME="beta")
    other.list_prompts()
    ids = [peer.peer_id, machine.peer_id(other)]
    ran = cli("send", "--json", str(machine.folder("s0")), "hi")
    assert (ran.code, ran.out) == (4, "")
    assert all(each in ran.error["message"] for each in ids)
    assert peer.call("check_messages")[0] == other.call("check_messages")[0] == "No new messages."


def test_a_message_for_a_peer_that_is_away_is_stored_with_a_word(cli, machine, peer):
    peer.close()
    ran = cli("send", "alpha", "wait for it")
    assert (ran.code, ran.out) == (0, f"Message sent to {peer.peer_id}\n")
    assert "is not running (last seen" in ran.err


@pytest.mark.parametrize("target", ["alpha", "alpha@elsewhere", "nobody"])
def test_require_live_refuses_who_is_not_running(cli, peer, target):
    if target == "alpha":
        peer.close()
    ran = cli("send", "--require-live", target, "hi")
    assert (ran.code, ran.out) == (7, "")
    assert "is not running, nothing was sent" in ran.err
    assert "Leave out --require-live" in ran.err
    ran = cli("send", "--json", "--require-live", target, "hi")
    assert (ran.code, ran.out, ran.error["code"]) == (7, "", "not_running")


def test_a_broker_of_another_implementation_gets_the_message(cli, upstream):
    ran = cli("send", "abcd1234", "hi")
    assert (ran.code, ran.out, ran.err) == (0, "Message sent to abcd1234\n", "")
    ((path, body),) = upstream.requests
    assert path == "/send-message"
    assert (body["from_id"], body["to_id"], body["text"]) == ("cli", "abcd1234", "hi")


@pytest.mark.bug("U19")
def test_its_refusal_is_a_failure(cli, upstream):
    upstream.refusal = "Peer abcd1234 not found"
    ran = cli("send", "abcd1234", "hi")
    assert (ran.code, ran.out) == (1, "")
    assert ran.err.startswith("Failed: Peer abcd1234 not found\n")
