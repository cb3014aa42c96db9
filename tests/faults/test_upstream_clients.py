"""Clients that register once and then only poll, as upstream's do, when the broker dies."""

import signal
import sys

import pytest
from support.machine import Machine

pytestmark = [
    pytest.mark.processes,
    pytest.mark.xdist_group("processes"),
    pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX signals"),
]


def register(machine: Machine, summary: str) -> str:
    body = {
        "pid": machine.bystander().pid,
        "cwd": str(machine.work),
        "git_root": None,
        "tty": None,
        "summary": summary,
    }
    return str(machine.post("/register", body)["id"])


def polled(machine: Machine, peer_id: str) -> list[str]:
    return [each["text"] for each in machine.post("/poll-messages", {"id": peer_id})["messages"]]


@pytest.mark.bug("U3")
@pytest.mark.fault("F39")
def test_upstreams_clients_keep_id_and_mail_when_the_leader_is_killed(machine: Machine):
    for session in (machine.session(), machine.session()):
        session.list_prompts()
    machine.wait_for_broker()
    ann, bob = register(machine, "ann"), register(machine, "bob")
    for text in ("one", "two"):
        body = {"from_id": ann, "to_id": bob, "text": text}
        assert machine.post("/send-message", body)["ok"]
    leader = machine.leader()

    leader.kill(signal.SIGKILL)
    machine.wait_for_broker(other_than=leader.pid)

    assert machine.post("/heartbeat", {"id": bob}) == {"ok": True}
    assert {ann, bob} <= {peer["id"] for peer in machine.peers()}
    assert polled(machine, bob) == ["one", "two"]
    assert machine.post("/send-message", {"from_id": bob, "to_id": ann, "text": "three"})["ok"]
    assert polled(machine, ann) == ["three"]
    assert polled(machine, bob) == []
