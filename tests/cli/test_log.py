"""The traffic of all mailboxes: what has been, and what comes."""

import json
import queue
import re
import signal
import subprocess
import threading

import pytest
from support.letters import join, send
from support.machine import command

from claude_peers.cli.commands import log

TIME = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d"


@pytest.fixture
def ids(machine):
    """Return the ids of two peers behind a broker of their own."""
    machine.serve(CLAUDE_PEERS_RATE_LIMIT_RPM="0")
    return {name: join(machine, name) for name in ("alpha", "beta")}


@pytest.fixture
def follow(machine):
    """Return what starts a `log -f`: its process and the lines it prints."""
    started = []

    def start(*words):
        process = subprocess.Popen(
            [*command(), "log", "-f", *words],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=machine.environment(PYTHONUNBUFFERED="1"),
            cwd=machine.work,
        )
        started.append(process)
        lines = queue.SimpleQueue()

        def read():
            for line in process.stdout:
                lines.put(line.decode())

        threading.Thread(target=read, daemon=True).start()
        return process, lines

    yield start
    for process in started:
        process.kill()
        process.communicate()


def shown(ran):
    return [json.loads(line)["id"] for line in ran.out.splitlines()]


def test_without_a_broker_there_is_no_log(cli):
    for words in ((), ("-f",), ("--json",)):
        ran = cli("log", *words)
        assert (ran.code, ran.out) == (6, "")


def test_where_nothing_was_said_the_way_to_say_something_is_named(cli, machine):
    machine.serve()
    ran = cli("log")
    assert (ran.code, ran.out) == (0, "No messages yet.\n")
    assert "claude-peers send PEER MESSAGE" in ran.err
    ran = cli("log", "--json")
    assert (ran.code, ran.out, ran.err) == (0, "", "")


def test_a_line_has_time_id_ends_state_intent_and_how_the_text_begins(cli, machine, ids):
    first = send(machine, ids["alpha"], "Is it ready?\nTell me.", sender=ids["beta"])
    machine.post("/poll-messages", {"id": ids["alpha"], "ack_supported": True})
    send(machine, ids["beta"], "yes", sender=ids["alpha"], reply_to=first, intent="inform")
    send(machine, ids["beta"], "by hand")
    ran = cli("log")
    assert (ran.code, ran.err) == (0, "")
    wanted = [
        rf"{TIME}      1  beta → alpha  answered  Is it ready\? …",
        rf"{TIME}      2  alpha → beta  queued  \[inform, re 1\]  yes",
        rf"{TIME}      3  cli → beta  queued  by hand",
    ]
    lines = ran.out.splitlines()
    assert len(lines) == len(wanted)
    for line, pattern in zip(lines, wanted, strict=True):
        assert re.fullmatch(pattern, line), line


def test_who_has_left_is_still_called_by_name(cli, machine, ids):
    send(machine, ids["alpha"])
    machine.post("/unregister", {"id": ids["alpha"]})
    assert "cli → alpha" in cli("log").out


def test_json_is_one_whole_message_a_line(cli, machine, ids):
    send(machine, ids["alpha"], "a\nb")
    send(machine, ids["beta"], "c")
    ran = cli("log", "--json")
    views = [json.loads(line) for line in ran.out.splitlines()]
    assert [(each["text"], each["to_name"]) for each in views] == [("a\nb", "alpha"), ("c", "beta")]
    assert views[0]["state"] == "queued"


def test_the_last_twenty_are_shown_or_as_many_as_wanted(cli, machine, ids):
    for _ in range(70):
        send(machine, ids["alpha"])
    assert shown(cli("log", "--json")) == [*range(51, 71)]
    assert shown(cli("log", "--json", "-n", "3")) == [68, 69, 70]
    assert shown(cli("log", "--json", "-n", "9999")) == [*range(1, 71)]
    assert shown(cli("log", "--json", "-n", "0")) == []


def test_one_peers_messages_are_those_from_it_and_to_it_however_long_ago(cli, machine, ids):
    send(machine, ids["alpha"])
    send(machine, ids["beta"], sender=ids["alpha"])
    for _ in range(70):
        send(machine, ids["beta"])
    for target in ("alpha", ids["alpha"]):
        assert shown(cli("log", "--json", "-n", "2", "--peer", target)) == [1, 2]


def test_a_peer_without_messages_is_told_from_no_messages_at_all(cli, machine, ids):
    send(machine, ids["alpha"])
    ran = cli("log", "--peer", "beta")
    assert (ran.code, ran.out) == (0, "No messages from or to beta.\n")
    assert "claude-peers peers" in ran.err


@pytest.mark.parametrize("count", ["-1", "10001", "all"])
def test_a_number_is_a_whole_one_within_reason(cli, count):
    ran = cli("log", f"-n={count}")
    assert (ran.code, ran.out) == (2, "")


def test_no_text_can_forge_a_line_or_steer_the_terminal(cli, machine, ids):
    send(machine, ids["alpha"], "\x1b]0;t\x07\x1b[2Jx\u2028 99  forged", sender="a\n98  b")
    ran = cli("log")
    assert len(ran.out.splitlines()) == 1
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]", ran.out)


def test_a_long_text_is_cut(cli, machine, ids):
    send(machine, ids["alpha"], "x" * 200_000)
    assert len(cli("log").out) < 300


def test_a_time_of_another_implementation_is_shown_as_it_is(cli, machine, ids):
    assert log.letters.moment("yesterday\x1b[2J") == "yesterday"


def test_it_goes_on_with_what_comes_until_it_is_interrupted(machine, ids, follow):
    send(machine, ids["alpha"], "before")
    process, lines = follow("-n", "1")
    assert lines.get(timeout=20).endswith("  before\n")
    for number in range(40):
        send(machine, ids["alpha"], f"after {number}")
    for number in range(40):
        assert lines.get(timeout=20).endswith(f"  after {number}\n")
    process.send_signal(signal.SIGINT)
    assert process.wait(20) == 130
    assert process.stderr.read() == b""


def test_following_one_peer_shows_no_other(machine, ids, follow):
    _, lines = follow("--json", "--peer", "beta", "-n", "1")
    first = send(machine, ids["beta"], "one")
    assert json.loads(lines.get(timeout=20))["id"] == first
    send(machine, ids["alpha"], "other")
    second = send(machine, ids["beta"], "two")
    assert json.loads(lines.get(timeout=20))["id"] == second


def test_it_goes_on_when_another_broker_takes_over(machine, follow):
    machine.serve()
    alpha = join(machine, "alpha")
    standby = machine.session(CLAUDE_PEERS_NAME="omega")
    standby.list_prompts()
    machine.peer_id(standby)
    leader = machine.broker
    _, lines = follow("--json")
    send(machine, alpha, "one")
    assert json.loads(lines.get(timeout=20))["text"] == "one"
    next(each for each in machine.processes if each.pid == leader).kill()
    machine.wait_for_broker(other_than=leader)
    send(machine, alpha, "two")
    assert json.loads(lines.get(timeout=20))["text"] == "two"


def test_a_wait_for_the_next_broker_is_told_once(cli, machine, ids, monkeypatch, capsys):
    looks = iter(range(log.SILENT * 3))

    def pause(_seconds):
        if next(looks, None) is None:
            raise KeyboardInterrupt

    monkeypatch.setattr(log.time, "sleep", pause)
    monkeypatch.setattr(log.letters, "pages", gone)
    ran = cli("log", "-f")
    assert ran.code == 130
    assert ran.err == "It has gone; waiting for the next broker.\n"


def test_absences_between_which_a_broker_answers_do_not_add_up(cli, ids, monkeypatch):
    almost = [True] * (log.SILENT - 1)
    looks = iter([*almost, False, *almost])

    def look(broker, *, after):
        absent = next(looks, None)
        if absent is None:
            raise KeyboardInterrupt
        return gone(broker, after=after) if absent else []

    monkeypatch.setattr(log, "PAUSE", 0)
    monkeypatch.setattr(log.letters, "pages", look)
    ran = cli("log", "-f", "--json")
    assert (ran.code, ran.err) == (130, "")


def gone(_broker, *, after):
    raise log.NoBrokerError("It has gone", "Wait.")


def test_a_broker_that_is_stepping_down_is_asked_no_more_and_another_refusal_ends_it(
    cli, ids, monkeypatch
):
    refusals = iter(["not_leader", "secret_required"])

    def refuse(_broker, *, after):
        raise log.RefusedError("/history", 503, {"error": "no", "code": next(refusals)})

    monkeypatch.setattr(log, "PAUSE", 0)
    monkeypatch.setattr(log.letters, "pages", refuse)
    ran = cli("log", "-f", "--json")
    assert (ran.code, ran.error["code"]) == (1, "secret_required")


def test_another_implementation_has_no_log(cli, upstream):
    ran = cli("log")
    assert (ran.code, ran.out) == (6, "")
    assert upstream.requests == []
