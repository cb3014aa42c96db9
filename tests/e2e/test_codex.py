"""Real Codex, offline, with claude-peers as it is configured for it."""

import json
import signal
from pathlib import Path
from typing import Any

import pytest
from support.arrivals import await_arrival, here, peer, send
from support.codex import Codex, ResponsesApi, environ_of
from support.machine import Machine
from support.mcp import Session
from support.scripted import Script, Use, serving
from support.waiting import eventually

NAME = "codex-mcp-client "
pytestmark = [pytest.mark.processes, pytest.mark.xdist_group("processes")]


@pytest.fixture
def codex(machine: Machine) -> Codex:
    return Codex(machine)


@pytest.fixture
def other(machine: Machine) -> Session:
    """Another agent, which leads."""
    session = machine.session()
    machine.peer_id(session)
    return session


def test_codex_writes_the_entry_and_looks_at_it_without_a_trace(codex: Codex, machine: Machine):
    codex.configure(server=False)
    codex.run("mcp", "add", "claude-peers", "--env", f"CLAUDE_PEERS_PORT={machine.port}",
              "--", "claude-peers")  # fmt: skip

    listed = json.loads(codex.run("mcp", "list", "--json").stdout)
    shown = codex.run("mcp", "get", "claude-peers").stdout

    assert [(each["name"], each["enabled"]) for each in listed] == [("claude-peers", True)]
    assert "command: claude-peers" in shown
    assert machine.broker is None
    assert not machine.database.exists()


def test_codex_is_a_peer_that_sends_and_is_shown_each_message_once(
    codex: Codex, machine: Machine, other: Session
):
    found: dict[str, Any] = {}

    def summary() -> Use:
        found.update(here(machine, NAME))
        send(other, found["id"], "first message")
        return Use("set_summary", {"summary": "tries out codex"})

    def check() -> Use:
        send(other, found["id"], "second message")
        return Use("check_messages")

    answer = {"to_id": machine.peer_id(other), "message": "codex was here"}
    script = Script(Use("list_peers"), summary, check, Use("send_message", answer))
    text = codex.play(script)

    listed, summed, checked, sent = script.results
    assert answer["to_id"] in listed
    assert "first message" in summed
    assert "second message" in checked
    assert [text.count(f"{each} message") for each in ("first", "second")] == [1, 1]
    assert found["id"] not in sent
    assert other.wait_for_push("codex was here")["meta"]["from_id"] == found["id"]
    assert [each["content"].count("codex was here") for each in other.pushes] == [1]
    assert found["cwd"] == str(codex.work)
    assert {"send_message", "check_messages", "wait_for_message"} <= script.offered


def test_the_instructions_reach_codex_in_the_words_it_can_use(codex: Codex, machine: Machine):
    requests: list[Any] = []

    class Noting(ResponsesApi):
        def reply(self, path: str, body: dict[str, Any]) -> tuple[str, str] | None:
            requests.append(body)
            return super().reply(path, body)

    with serving(Noting, Script()) as port:
        codex.configure(port)
        codex.run("exec", "--skip-git-repo-check", "GO")

    tools = [each for each in requests[-1]["tools"] if each.get("name") == "mcp__claude_peers"]
    (namespace,) = tools
    assert "grants nothing" in namespace["description"]
    assert "this server's send_message" in namespace["description"]


def test_in_the_little_environment_it_is_given_it_finds_the_same_broker(
    codex: Codex, machine: Machine, other: Session
):
    seen: dict[str, Any] = {}

    def look() -> Use:
        seen.update(here(machine, NAME))
        seen["environ"] = environ_of(seen["pid"])
        return Use("whoami")

    codex.play(Script(Use("list_peers"), look))

    given = {name for name in seen["environ"] if name.startswith(("CLAUDE", "XDG"))}
    assert given == {"CLAUDE_PEERS_PORT"}
    assert machine.broker == other.pid


@pytest.mark.parametrize("end", ["by itself", signal.SIGTERM, signal.SIGKILL])
def test_when_codex_has_ended_the_peer_is_away_and_its_mail_waits_for_the_next(
    codex: Codex, machine: Machine, other: Session, end: Any
):
    seen: dict[str, Any] = {}

    def last() -> Use | None:
        seen.update(here(machine, NAME))
        send(other, seen["id"], "before the end")
        if end != "by itself":
            process.send_signal(end)
            process.wait(30)
        return None

    with serving(ResponsesApi, Script(Use("list_peers"), last)) as port:
        codex.configure(port)
        process = codex.start()
        process.wait(60)

    eventually(lambda: not Path(f"/proc/{seen['pid']}").exists(), what="the server's end")
    eventually(lambda: peer(machine, NAME) is None, what="Codex off the roster")
    send(other, seen["name"], "after the end")
    text = codex.play(Script(Use("check_messages")))
    assert text.count("after the end") == 1
    told = machine.run("inbox", "--of", seen["id"])
    assert told.stdout.count("before the end") + text.count("before the end") == 1


def test_the_hooks_tell_codex_of_mail_after_a_prompt_and_once_at_the_end_of_a_turn(
    codex: Codex, machine: Machine, other: Session
):
    seen: dict[str, Any] = {}

    def last() -> Use:
        seen.update(here(machine, NAME))
        return Use("whoami")

    codex.play(Script(last))
    eventually(lambda: peer(machine, NAME) is None, what="Codex off the roster")
    send(other, seen["name"], "waits for a prompt")
    machine.run("hooks", "install", "--client", "codex")
    await_arrival(machine, codex.home / "hooks.json", NAME)

    def late() -> Use:
        send(other, here(machine, NAME)["id"], "came in the turn")
        return Use("true", own=True)

    script = Script(Use("check_messages"), late, None, Use("check_messages"))
    text = codex.play(script, "--dangerously-bypass-hook-trust")

    told = "claude-peers: 1 unread message from "
    assert [each.count(told) for each in script.texts] == [1, 1, 1, 2, 2]
    assert [text.count(each) for each in ("waits for a prompt", "came in the turn")] == [1, 1]
