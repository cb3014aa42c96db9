"""Real Gemini CLI, offline, with claude-peers as it is configured for it."""

import json
import signal
from pathlib import Path
from typing import Any

import pytest
from support.arrivals import await_arrival, here, peer, send
from support.gemini import Gemini, GeminiApi
from support.machine import Machine
from support.mcp import Session
from support.scripted import Script, Use, serving
from support.waiting import eventually

NAME = "gemini-cli-mcp-client "
LINGER = ("-c", 'trap "" TERM; echo $$ >"$HOME/pid"; { cat; sleep 1; } | "$@"', "sh")
"""Keeps a server for a second after its client has closed its input, as a slow neighbour may."""
pytestmark = [pytest.mark.processes, pytest.mark.xdist_group("processes")]


@pytest.fixture
def gemini(machine: Machine) -> Gemini:
    return Gemini(machine)


@pytest.fixture
def other(machine: Machine) -> Session:
    """Another agent, which leads."""
    session = machine.session()
    machine.peer_id(session)
    return session


def pid_of(machine: Machine) -> str:
    return (machine.home / "pid").read_text().strip()


def test_gemini_writes_the_entry_and_its_check_leaves_no_trace(gemini: Gemini, machine: Machine):
    gemini.configure()
    wanted = json.loads(gemini.settings.read_text())["mcpServers"]
    program, arguments = (wanted["claude-peers"][each] for each in ("command", "args"))
    gemini.configure(server=False)
    words = ("mcp", "add", "--scope", "user", "--trust", "claude-peers", program, "--")
    gemini.run(*words, *arguments)

    written = json.loads(gemini.settings.read_text())["mcpServers"]
    quick = gemini.run("mcp", "list")
    left = (machine.broker, machine.database.exists())
    machine.serve()
    servers = {"claude-peers": {"command": "sh", "args": [*LINGER, program, *arguments]}}
    gemini.configure(mcpServers=servers)
    slow = gemini.run("mcp", "list")

    assert written == wanted
    assert all("Connected" in each.stdout + each.stderr for each in (quick, slow))
    assert left == (None, False)
    eventually(lambda: not Path(f"/proc/{pid_of(machine)}").exists(), what="the server's end")
    assert machine.post("/list-peers", {"scope": "machine", "gone": True}) == []


def test_gemini_is_a_peer_that_sends_and_is_shown_each_message_once(
    gemini: Gemini, machine: Machine, other: Session
):
    found: dict[str, Any] = {}

    def summary() -> Use:
        found.update(here(machine, NAME))
        send(other, found["id"], "first message")
        return Use("set_summary", {"summary": "tries out gemini"})

    def check() -> Use:
        send(other, found["id"], "second message")
        return Use("check_messages")

    answer = {"to_id": machine.peer_id(other), "message": "gemini was here"}
    script = Script(Use("list_peers"), summary, check, Use("send_message", answer))
    gemini.configure()
    text = gemini.play(script)

    listed, summed, checked, _ = script.results
    assert answer["to_id"] in listed
    assert "first message" in summed
    assert "second message" in checked
    assert [text.count(f"{each} message") for each in ("first", "second")] == [1, 1]
    assert other.wait_for_push("gemini was here")["meta"]["from_id"] == found["id"]
    assert [each["content"].count("gemini was here") for each in other.pushes] == [1]
    assert found["cwd"] == str(gemini.work)
    assert {"send_message", "check_messages", "wait_for_message"} <= script.offered


@pytest.mark.parametrize("end", ["by itself", signal.SIGTERM, signal.SIGKILL])
def test_when_gemini_has_ended_the_peer_is_away_and_its_mail_waits_for_the_next(
    gemini: Gemini, machine: Machine, other: Session, end: Any
):
    seen: dict[str, Any] = {}

    def last() -> Use | None:
        seen.update(here(machine, NAME))
        send(other, seen["id"], "before the end")
        if end != "by itself":
            process.send_signal(end)
            process.wait(30)
        return None

    gemini.configure()
    with serving(GeminiApi, Script(Use("list_peers"), last)) as port:
        process = gemini.start(port)
        process.wait(60)

    eventually(lambda: peer(machine, NAME) is None, what="Gemini off the roster")
    send(other, seen["name"], "after the end")
    text = gemini.play(Script(Use("check_messages")))
    assert text.count("after the end") == 1
    told = machine.run("inbox", "--of", seen["id"])
    assert told.stdout.count("before the end") + text.count("before the end") == 1


def test_the_hooks_tell_gemini_of_mail_after_a_prompt_and_once_at_the_end_of_a_turn(
    gemini: Gemini, machine: Machine, other: Session
):
    seen: dict[str, Any] = {}

    def last() -> Use:
        seen.update(here(machine, NAME))
        return Use("whoami")

    gemini.configure()
    gemini.play(Script(last))
    eventually(lambda: peer(machine, NAME) is None, what="Gemini off the roster")
    send(other, seen["name"], "waits for a prompt")
    machine.run("hooks", "install", "--client", "gemini")
    await_arrival(machine, gemini.settings, NAME)

    def late() -> Use:
        send(other, here(machine, NAME)["id"], "came in the turn")
        return Use("list_directory", {"dir_path": "."}, own=True)

    script = Script(Use("check_messages"), late, None, Use("check_messages"))
    text = gemini.play(script)

    told = "claude-peers: 1 unread message from "
    assert [each.count(told) for each in script.texts] == [1, 1, 1, 2, 2]
    assert [text.count(each) for each in ("waits for a prompt", "came in the turn")] == [1, 1]
