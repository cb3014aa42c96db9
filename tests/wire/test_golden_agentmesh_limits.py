"""Our broker under agentmesh's limits, against the recorded broker: rate, time to live, retries.

What differs on purpose is listed for each session; an entry that no longer differs fails.
"""

from typing import Any

from support import http
from support.golden import Bindings, session
from support.inproc import running
from support.machine import Machine
from wire.test_golden_agentmesh import Mesh

SWEPT = 32.0
"""Seconds after which the recorded broker has looked for what is overdue."""
TTL: dict[str, int | None] = {
    # B4-2: a last value that a living peer was given is no dead letter because nobody swept it.
    **dict.fromkeys(("ttl-peek-after-sweep", "ttl-dead-letters", "ttl-dead-letters-limit-1"), None),
    "ttl-dead-letters-limit-float": 400,  # the wrong type is named; theirs is the database's error
}
RETRIES: dict[str, int | None] = {
    # B4-5: what nobody has asked for yet was not handed out, and is no dead letter.
    **dict.fromkeys(
        ("retries0-peek-after-sweep", "retries0-dead-letters", "retries0-dead-letters-limit-1"),
        None,
    ),
    "retries0-dead-letters-limit-float": 400,
}


def replayed(port: int, name: str, agreed: dict[str, int | None], **before: Any) -> Bindings:
    """Replay a session; fail for what came out otherwise than agreed, or not otherwise at all."""
    bindings = Bindings()
    mesh = Mesh(port, bindings, before, agreed)
    lines = session("http-agentmesh-0.4.jsonl", name)
    told = [f"{each['case']}: {found}" for each in lines for found in mesh.complaints(each)]
    assert not told, "\n".join(told)
    assert (mesh.different, mesh.skipped) == (set(agreed), set())
    return bindings


def ask(port: int, path: str, peer_id: str, **fields: Any) -> list[dict[str, Any]]:
    """Return what a request for somebody's messages is answered with."""
    answer = http.post(port, path, {"id": peer_id, **fields})
    assert answer.status == 200, answer.text
    (found,) = answer.json().values()
    return list(found)


def test_as_many_are_taken_in_a_minute_as_were_recorded(machine: Machine) -> None:
    machine.serve(AGENTMESH_RATE_LIMIT_RPM="3", AGENTMESH_MAX_RETRIES="3")
    replayed(machine.port, "rate-limit-3", {})


def test_what_expires_is_a_dead_letter_as_recorded(monkeypatch) -> None:
    with running(deliveries=4) as broker:
        wall = broker.broker.clock.wall

        def sweep() -> None:
            monkeypatch.setattr(broker.broker.clock, "wall", lambda: wall() + SWEPT)
            broker.run(broker.broker.tidy())

        known = replayed(broker.port, "ttl", TTL, **{"ttl-peek-after-sweep": sweep}).values
        peer = known["<id:Zt>"]
        waiting = [each["text"] for each in ask(broker.port, "/peek-messages", peer)]
        dead = ask(broker.port, "/dead-letters", peer)
    assert waiting == ["lives", "kept"]
    assert [(each["text"], each["reason"]) for each in dead] == [
        ("also dies", "TTL_EXPIRED"),
        ("will die", "TTL_EXPIRED"),
    ]


def test_without_retries_what_was_handed_out_once_is_a_dead_letter(machine: Machine) -> None:
    machine.serve(AGENTMESH_MAX_RETRIES="0", AGENTMESH_ACK_DEADLINE_MS="1")
    peer = replayed(machine.port, "retries0", RETRIES).values["<id:Zr>"]
    first = ask(machine.port, "/poll-messages", peer, ack_supported=True)
    assert [(each["text"], each["retry_count"], each["max_retries"]) for each in first] == [
        ("will die", 0, 0),
        ("kept", 0, 0),
    ]
    assert ask(machine.port, "/dead-letters", peer) == []  # it may still be acknowledged
    back = {"id": peer, "message_ids": [each["id"] for each in first]}
    assert http.post(machine.port, "/release-messages", back).status == 200
    assert ask(machine.port, "/poll-messages", peer, ack_supported=True) == []
    (dead,) = ask(machine.port, "/dead-letters", peer)
    # A last value is forgotten instead: who subscribes again is given it again.
    assert (dead["text"], dead["reason"]) == ("will die", "MAX_RETRIES_EXCEEDED")
