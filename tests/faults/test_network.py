"""The way to the broker is slow, breaks off or goes nowhere: nothing is lost or doubled."""

import http.client
from collections.abc import Iterator

import pytest
from support import http as plain
from support.fault_proxy import (
    BLACK_HOLE,
    Cut,
    Delay,
    Fault,
    FaultProxy,
    Trickle,
)
from support.letters import join, send
from support.machine import Machine
from support.mcp import Session
from support.waiting import eventually

pytestmark = [pytest.mark.processes, pytest.mark.xdist_group("processes")]

PATIENCE = 14
"""Seconds within which a tool must have said something: 10, and what starting a thread may take."""
NO_BROKER = 6
"""Exit code of a command that had no answer."""
SENT = b'"message_id"'
"""What only the answer to a send contains."""


class Far:
    """A machine whose broker some processes reach through a proxy only.

    Attributes:
        proxy: what lies between.
        near: a session that has a connection of its own.
    """

    def __init__(self, machine: Machine, proxy: FaultProxy) -> None:
        self.machine = machine
        self.proxy = proxy
        self.url = f"http://127.0.0.1:{proxy.port}"
        self.near = self.session(CLAUDE_PEERS_BROKER_URL=None)

    def session(self, **environ: str | None) -> Session:
        """Start a session behind the proxy, and wait until it is registered."""
        started = self.starting(**environ)
        # Whoever is listed may not be stored yet; who is told its id is.
        assert self.machine.peer_id(started) in started.call("whoami")[0]
        return started

    def starting(self, **environ: str | None) -> Session:
        started = self.machine.session(**{"CLAUDE_PEERS_BROKER_URL": self.url, **environ})
        started.list_prompts()
        return started

    def cli(self, *arguments: str):
        return self.machine.cli(*arguments, CLAUDE_PEERS_BROKER_URL=self.url)

    def rows(self, session: Session) -> list[str]:
        """Return the ids of all rows that are the session's, also of those that are gone."""
        known = self.machine.post("/list-peers", {"scope": "machine", "gone": True})
        return [str(each["id"]) for each in known if each["pid"] == session.pid]

    def accepted(self) -> int:
        """Return how many messages there are, each in one state."""
        ledger = self.machine.post("/ledger")
        assert ledger["accepted"] == sum(ledger["states"].values()) + ledger["purged"]
        return int(ledger["accepted"])

    def serves_others(self) -> None:
        """See that the broker answers whoever comes another way."""
        assert plain.get(self.machine.port, "/health", timeout=2).status == 200
        assert self.near.pid in [peer["pid"] for peer in self.machine.peers()]


@pytest.fixture
def far(machine: Machine) -> Iterator[Far]:
    machine.environ |= {"CLAUDE_PEERS_RATE_LIMIT_RPM": "0"}
    machine.serve()
    with FaultProxy(machine.port) as proxy:
        yield Far(machine, proxy)
        proxy.heal()


def texts(session: Session) -> list[str]:
    """Return the texts that a session is shown, in order, until there are no more."""
    shown: list[str] = []
    while True:
        told, failed = session.call("check_messages", timeout=PATIENCE)
        assert not failed, told
        found = [line for line in told.splitlines() if line.startswith("text ")]
        if not found:
            return shown
        shown += found


# Sessions


def test_a_slow_way_only_takes_longer(far: Far):
    session = far.session()
    me = far.rows(session)
    to_near = far.machine.peer_id(far.near)
    far.proxy.set(requests=Delay(0.2), answers=Delay(0.2))
    asked = [session.ask_tool("send_message", to_id=to_near, message=f"text {n}") for n in range(5)]
    assert not any(session.outcome(each, PATIENCE)[1] for each in asked)
    far.serves_others()
    assert texts(far.near) == [f"text {n}" for n in range(5)]
    assert far.near.call("send_message", to_id=me[0], message="text back")[1] is False
    assert session.wait_for_push("text back")
    assert texts(session) == ["text back"]
    assert (far.accepted(), far.rows(session)) == (6, me)


@pytest.mark.parametrize("keep", [0, len(SENT) + 5], ids=["before", "within"])
@pytest.mark.fault("F45")
def test_a_connection_that_is_reset_after_the_commit_makes_one_message(far: Far, keep):
    session = far.session()
    me = far.rows(session)
    far.proxy.set(answers=Cut(at=SENT, keep=keep))
    told, failed = session.call(
        "send_message", to_id=far.machine.peer_id(far.near), message="text once", timeout=PATIENCE
    )
    assert far.proxy.cuts == 1
    assert not failed
    assert "there is one of it" in told
    assert texts(far.near) == ["text once"]
    assert (far.accepted(), far.rows(session)) == (1, me)


def test_connections_that_are_reset_again_and_again_lose_double_and_mix_up_nothing(far: Far):
    sender, reader = far.session(), far.session()
    me, to_reader = far.rows(sender), far.rows(reader)
    sent = [f"text {n:03}" for n in range(120)]
    asked = []
    for number, text in enumerate(sent):
        asked.append(sender.ask_tool("send_message", to_id=to_reader[0], message=text))
        if number % 10 == 5:
            assert not sender.outcome(asked[number - 3], PATIENCE)[1]
            far.proxy.reset()
    told = [sender.outcome(each, PATIENCE) for each in asked]
    assert [each for each in told if each[1]] == []
    assert texts(reader) == sent
    pushes = [push["content"].count("text ") for push in reader.pushes]
    assert sum(pushes) <= len(sent)
    assert far.accepted() == len(sent)
    assert (far.rows(sender), far.rows(reader)) == (me, to_reader)
    assert far.proxy.accepted > 12


def test_a_registration_whose_answer_is_lost_makes_one_peer(far: Far):
    far.proxy.set(answers=Cut(at=b'"token"', keep=3))
    session = far.starting()
    eventually(lambda: far.proxy.cuts == 1, what="the cut")
    told, failed = session.call("whoami", timeout=PATIENCE)
    assert not failed
    rows = far.rows(session)
    assert len(rows) == 1
    assert rows[0] in told
    assert far.near.call("send_message", to_id=rows[0], message="text for you")[1] is False
    assert session.wait_for_push("text for you")


@pytest.mark.parametrize(
    ("requests", "answers"),
    [(BLACK_HOLE, BLACK_HOLE), (Delay(0), Trickle(5))],
    ids=["nothing comes through", "five bytes a second come back"],
)
def test_a_send_without_an_answer_is_told_so_and_repeating_it_makes_one_message(
    far: Far, requests: Fault, answers: Fault
):
    session = far.session()
    me, to_near = far.rows(session), far.machine.peer_id(far.near)
    far.proxy.set(requests=requests, answers=answers)
    told, failed = session.call("send_message", to_id=to_near, message="text 1", timeout=PATIENCE)
    assert failed
    assert "10 s" in told and "may have been stored or not" in told and "same arguments" in told
    far.serves_others()
    far.proxy.heal()
    told, failed = session.call("send_message", to_id=to_near, message="text 1", timeout=PATIENCE)
    assert not failed, told
    assert not session.call("send_message", to_id=to_near, message="text 1", timeout=PATIENCE)[1]
    assert texts(far.near) == ["text 1"] * 2  # the third was sent after an answer: it is meant
    assert (far.accepted(), far.rows(session)) == (2, me)


# The command line


def test_a_command_whose_answer_breaks_off_is_done_once_or_says_why(far: Far):
    bob = join(far.machine, "bob")
    far.proxy.set(answers=Cut(at=b'"name"', keep=20))
    done = far.cli("peers")
    assert (done.returncode, far.proxy.cuts) == (NO_BROKER, 1)
    assert "broke off before its answer was complete" in done.stderr and "Try again" in done.stderr
    far.proxy.set(answers=Cut(at=SENT, keep=3))
    done = far.cli("send", bob, "text once")
    assert far.proxy.cuts == 2
    assert done.returncode in (0, NO_BROKER)
    assert far.accepted() == 1
    assert far.cli("peers").returncode == 0
    far.serves_others()


def test_a_command_in_a_black_hole_ends_with_a_sentence(far: Far):
    far.proxy.set(requests=BLACK_HOLE, answers=BLACK_HOLE)
    for arguments in (("peers",), ("send", "bob", "text")):
        done = far.machine.cli(*arguments, timeout=20, CLAUDE_PEERS_BROKER_URL=far.url)
        assert done.returncode == NO_BROKER
        assert "did not answer within 3 s" in done.stderr
    assert far.accepted() == 0


# Plain HTTP


def test_a_plain_client_that_repeats_its_key_sends_once(far: Far):
    bob = join(far.machine, "bob")
    body = {"from_id": "cli", "to_id": bob, "text": "text once", "dedupe_key": "key 1"}
    far.proxy.set(answers=Cut(at=SENT))
    with pytest.raises((ConnectionError, http.client.HTTPException)):
        plain.post(far.proxy.port, "/send-message", body)
    again = plain.post(far.proxy.port, "/send-message", body).json()
    assert (again["ok"], again["duplicate"]) == (True, True)
    assert far.accepted() == 1


def test_mail_whose_answer_broke_off_is_kept_until_it_is_acknowledged(far: Far):
    bob = join(far.machine, "bob")
    number = send(far.machine, bob, "text kept")
    far.proxy.set(answers=Cut(at=b"text kept"))
    poll = {"id": bob, "ack_supported": True}
    with pytest.raises((ConnectionError, http.client.HTTPException)):
        plain.post(far.proxy.port, "/poll-messages", poll)
    assert far.machine.post("/ledger")["states"]["leased"] == 1
    mine = {"id": bob, "message_ids": [number]}
    assert plain.post(far.proxy.port, "/release-messages", mine).json()["ok"]
    polled = plain.post(far.proxy.port, "/poll-messages", poll).json()["messages"]
    assert [each["text"] for each in polled] == ["text kept"]
    assert plain.post(far.proxy.port, "/ack-messages", mine).json()["ok"]
    assert far.machine.post("/ledger")["states"]["seen"] == 1
