"""WebSockets and streams of events while the broker's process is killed, ends or hands over."""

import signal
import sys

import pytest
from gateway.test_events import Events
from support.machine import Machine
from support.traffic import watching
from support.websocket import Agent
from websockets.exceptions import ConnectionClosed

pytestmark = [
    pytest.mark.processes,
    pytest.mark.xdist_group("processes"),
    pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX signals"),
]
UNLIMITED = {"CLAUDE_PEERS_RATE_LIMIT_RPM": "0", "CLAUDE_PEERS_MAILBOX_LIMIT": "0"}
ROUNDS = 3
EACH = 20


def end(machine: Machine, how: signal.Signals) -> None:
    """Let the broker's process end, and another one lead."""
    victim = machine.broker
    process = next(each for each in machine.processes if each.pid == victim)
    process.send_signal(how)
    process.wait(15)
    machine.wait_for_broker(other_than=victim)


def send(machine: Machine, to_id: str, *texts: str) -> list[int]:
    bodies = ({"from_id": "cli", "to_id": to_id, "text": text} for text in texts)
    return [machine.post("/send-message", body)["message_id"] for body in bodies]


def nodes(machine: Machine) -> None:
    for _ in range(ROUNDS + 1):
        machine.serve(**UNLIMITED)


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM], ids=lambda each: each.name)
def test_who_comes_back_to_the_next_broker_gets_each_message_and_nobody_is_missed(machine, how):
    nodes(machine)
    lwt = {"topic": "status", "message": "ann is gone", "qos": 1, "retain": True}
    listener = machine.post("/register", {"name": "listener"})["id"]
    machine.post("/subscribe", {"id": listener, "topic": "status"})
    got: list[int] = []
    with Agent(machine.port) as agent:
        agent.join(name="ann", lwt=lwt)
        ids = send(machine, agent.id, *(f"first {number}" for number in range(EACH)))
        got += [agent.message()["id"] for _ in ids]
        agent.acknowledge(*ids[:-3])  # the last three are in hand when the process ends
        agent.answered()
        known = agent.id, agent.token
    with watching(machine.port) as watch:
        for round_ in range(ROUNDS):
            end(machine, how)
            with Agent(machine.port) as agent:
                agent.come_back(*known)
                again = [agent.message()["id"] for _ in range(3)]
                assert again == got[-3:]
                agent.acknowledge(*again)
                sent = send(machine, agent.id, *(f"{round_} {n}" for n in range(EACH)))
                ids += sent
                got += [agent.message()["id"] for _ in sent]
                agent.acknowledge(*sent[:-3])
                agent.answered()
    assert len(watch.epochs) >= 1
    assert got == ids == sorted(set(ids))  # none lost, doubled or out of order
    ledger = machine.post("/ledger")
    assert ledger["balanced"]
    assert ledger["accepted"] == len(ids)  # and no will among them
    assert machine.post("/peek-messages", {"id": listener})["messages"] == []


def test_a_hand_over_is_told_to_a_websocket_and_a_kill_is_noticed(machine):
    nodes(machine)
    for how, code in ((signal.SIGTERM, 1001), (signal.SIGKILL, None)):
        with Agent(machine.port) as agent:
            agent.join()
            end(machine, how)
            with pytest.raises(ConnectionClosed) as closed:
                agent.socket.recv(timeout=15)
            told = closed.value.rcvd
            assert (told and told.code) == code


def test_a_reader_of_events_goes_on_at_the_next_broker_with_its_last_id(machine):
    nodes(machine)
    me = machine.post("/register", {})["id"]
    ids = send(machine, me, *(f"m{number}" for number in range(EACH)))
    with Events(machine.port, f"?id={me}") as reader:
        reader.open()
        assert reader.ids(EACH) == ids
        end(machine, signal.SIGKILL)
    with Events(machine.port, f"?id={me}", Last_Event_ID=str(ids[-3])) as again:
        again.open()
        assert again.ids(2) == ids[-2:]
        (later,) = send(machine, me, "later")
        assert again.ids(1) == [later]
    counts = machine.post("/ledger")
    assert counts["balanced"]
    assert counts["states"]["seen"] == EACH - 2
