"""A session that is killed between a push and the evidence that it was seen loses nothing."""

import json
import os
from collections.abc import Callable

import pytest
from support.agents import Claude, Hosted, identity, shown
from support.machine import Machine
from support.waiting import eventually

pytestmark = [pytest.mark.processes, pytest.mark.xdist_group("processes")]
TEXT = "the text that was pushed"
CHANNEL = ("--channels", "server:claude-peers")


def hook(server: Hosted, event: str, **given: str) -> str:
    """Call the hook tool as Claude Code does; return what it puts into the agent's context."""
    told = json.loads(server.call("hook", event=event, session_id="s-1", **given)[0])
    return str(told["hookSpecificOutput"]["additionalContext"]) if told else ""


def by_channel(_machine: Machine, _agent: Claude, server: Hosted) -> None:
    server.wait_for_push(TEXT)


def by_rewake(machine: Machine, agent: Claude, _server: Hosted) -> None:
    """Wait as the client's hook does, and take what comes."""
    pipe = machine.database.with_suffix(".d") / "wake" / str(agent.pid)
    with pipe.open(encoding="utf-8") as waiter:
        assert TEXT in waiter.read()


def by_hook(_machine: Machine, _agent: Claude, server: Hosted) -> None:
    eventually(lambda: TEXT in hook(server, "PostToolBatch"))


PUSHES = [(by_channel, CHANNEL), (by_rewake, ()), (by_hook, ())]


def named(each: object) -> str:
    return each.__name__ if callable(each) else " ".join(each)  # type: ignore[arg-type]  # arguments else


def states(machine: Machine) -> dict[str, int]:
    ledger = machine.post("/ledger", {})
    assert ledger["balanced"]
    assert ledger["accepted"] == sum(ledger["states"].values()) + ledger["purged"]
    return {state: count for state, count in ledger["states"].items() if count}


@pytest.mark.bug("U1")
@pytest.mark.parametrize(("pushed", "arguments"), PUSHES, ids=named)
def test_what_was_pushed_to_a_session_that_was_killed_goes_to_its_successor_alone(
    machine: Machine,
    pushed: Callable[[Machine, Claude, Hosted], None],
    arguments: tuple[str, ...],
):
    sender = machine.session(CLAUDE_PEERS_NAME="sender")
    sender.call("whoami")
    killed = Claude(machine, "s-1", *arguments)
    server = killed.serve()
    sender.call("send_message", to_id=identity(server)[0], message=TEXT)
    pushed(machine, killed, server)
    eventually(lambda: states(machine) == {"pushed": 1})
    killed.kill()

    stranger = Claude(machine, "s-9").serve()
    stranger.call("check_messages")
    assert shown(stranger, TEXT) == 0
    assert states(machine) == {"pushed": 1}

    heir = Claude(machine, "s-1").serve()
    heir.call("check_messages")
    assert shown(heir, TEXT) == 1
    assert shown(heir, "redelivered, offered once before") == 1
    eventually(lambda: states(machine) == {"seen": 1})


def test_what_was_seen_before_the_kill_is_not_shown_to_the_successor(machine: Machine):
    sender = machine.session(CLAUDE_PEERS_NAME="sender")
    sender.call("whoami")
    killed = Claude(machine, "s-1")
    server = killed.serve()
    sender.call("send_message", to_id=identity(server)[0], message=TEXT)
    by_hook(machine, killed, server)
    assert hook(server, "PostToolBatch") == ""  # the client went on
    eventually(lambda: states(machine) == {"seen": 1})
    killed.kill()

    heir = Claude(machine, "s-1").serve()
    heir.call("check_messages")
    assert shown(heir, TEXT) == 0


def test_a_receipt_by_the_clients_hook_is_evidence(machine: Machine):
    sender = machine.session(CLAUDE_PEERS_NAME="sender")
    sender.call("whoami")
    agent = Claude(machine, "s-1")
    server = agent.serve()
    pipe = machine.database.with_suffix(".d") / "wake" / str(agent.pid)
    waiter = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    os.set_blocking(waiter, True)
    sender.call("send_message", to_id=identity(server)[0], message=TEXT)
    with os.fdopen(waiter, encoding="utf-8") as reader:
        told = reader.read()
    eventually(lambda: states(machine) == {"pushed": 1})
    prompt = f"[SYSTEM NOTIFICATION - NOT USER INPUT] Stop hook blocking error: {told}"
    assert hook(server, "UserPromptSubmit", prompt=prompt) == ""
    eventually(lambda: states(machine) == {"seen": 1})
    assert server.call("check_messages")[0] == "No new messages."
    logs = "".join(each.read_text() for each in machine.home.rglob("*.log*"))
    assert "SYSTEM NOTIFICATION" not in logs + server.stderr
