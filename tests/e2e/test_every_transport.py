"""One peer of each kind, all writing to all, across a take-over: nothing is lost or doubled."""

import signal
import uuid
from collections.abc import Callable
from typing import Any

import pytest
from e2e.desk import BOUND, Desk
from e2e.parties import OverCurl, OverEvents, OverMcp, OverWebhook, OverWebSocket, Party
from e2e.stub_api import Model, prompts, say
from support.machine import Machine
from support.receivers import Receiver
from support.traffic import Account, account
from support.waiting import eventually

pytestmark = [pytest.mark.processes, pytest.mark.xdist_group("processes")]

WHEN = ("before", "after")
"""The two rounds: everybody writes to everybody before the leader dies, and after it."""
NONE = Account(lost=0, duplicated=0, redelivered=0, reordered=0, unasked=0)


class Talker(Model):
    """Writes to everybody, once for each prompt that names a round.

    Attributes:
        to: the names to write to.
        wrote: the rounds that it has written in.
    """

    def __init__(self) -> None:
        super().__init__()
        self.to: list[str] = []
        self.wrote: set[str] = set()

    def turn(self, who: int, body: dict[str, Any]) -> list[dict[str, Any]]:
        for when in WHEN:
            if f"WRITE {when}" in prompts(body) and when not in self.wrote:
                self.wrote.add(when)
                return [self._send(name, mail("claude", name, when)) for name in self.to]
        return say("?")

    def _send(self, to: str, text: str) -> dict[str, Any]:
        return {
            "type": "tool_use",
            "id": f"toolu_{uuid.uuid4().hex[:20]}",
            "name": "mcp__claude-peers__send_message",
            "input": {"to_id": to, "message": text},
        }


def mail(sender: str, to: str, when: str) -> str:
    """Return the one word that one peer writes to another in a round."""
    return f"mail-{sender}-{to}-{when}."


def test_all_kinds_of_peers_talk_across_a_take_over(
    machine: Machine, sit_down: Callable[..., Desk]
) -> None:
    model = Talker()
    desk = sit_down(model)
    leader = machine.serve()
    desk.terminal.start()
    desk.terminal.ready()
    agent = desk.peer(route="rewake")
    with Receiver() as hook:
        parties: list[Party] = [
            OverWebSocket(machine, "socket"),
            OverEvents(machine, "events"),
            OverCurl(machine, "curl"),
            OverWebhook(machine, "hook", hook),
            OverMcp(machine, "sdk"),
        ]
        model.to = [each.name for each in parties]
        for each in parties:
            each.start()

        everybody_writes(desk, parties, agent["name"], "before")
        leader.send_signal(signal.SIGKILL)
        leader.wait(10)
        everybody_writes(desk, parties, agent["name"], "after")
        machine.wait_for_broker(other_than=leader.pid)

        names = ["claude", *(each.name for each in parties)]
        owed = {
            name: [mail(other, name, when) for when in WHEN for other in names if other != name]
            for name in names
        }
        for text in owed["claude"]:
            eventually(lambda text=text: desk.terminal.shown(text), timeout=BOUND, what=text)
        settled(machine, 2 * len(names) * (len(names) - 1))
        for each in parties:
            each.stop()

    assert [desk.terminal.shown(text) for text in owed["claude"]] == [1] * len(owed["claude"])
    for each in parties:
        told = account(owed[each.name], each.offers)
        assert told._replace(redelivered=0, reordered=0) == NONE, (each.name, each.offers)


def everybody_writes(desk: Desk, parties: list[Party], agent: str, when: str) -> None:
    """Let each write to all others, the agent in one turn of its own."""
    desk.terminal.say(f"WRITE {when}")
    for each in parties:
        for other in parties:
            if other is not each:
                each.send(other.name, mail(each.name, other.name, when))
        each.send(agent, mail(each.name, "claude", when))


def settled(machine: Machine, accepted: int) -> None:
    """Wait until every message was read, and no other was ever accepted."""

    def ledger() -> bool:
        told = machine.post("/ledger")
        assert told["balanced"]
        states = told["states"]
        done = sum(states.get(name, 0) for name in ("seen", "answered"))
        return bool(told["accepted"] == accepted == done + states.get("pushed", 0))

    eventually(ledger, timeout=BOUND, what=f"{accepted} messages to be read")
