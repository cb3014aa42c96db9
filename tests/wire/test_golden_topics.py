"""Our broker against the recorded brokers of agentmesh, for all that is about topics.

`DELIBERATE` is what we answer otherwise, in every version that has the case and does not answer so.
"""

from typing import Any

import pytest
from support.golden import Bindings, Replay, load, parse
from support.machine import Machine

VERSIONS = ("0.1", "0.1.1", "0.4")
PATHS = ("subscribe", "unsubscribe", "broadcast")
NO_BODY = ("empty", "badjson", "null", "array", "object-empty", "string", "number")
DELIBERATE: dict[str, tuple[int, str]] = {
    **{f"get-{path}": (405, "these are requests; agentmesh greets on any GET") for path in PATHS},
    **{
        f"{path}-body-{kind}": (400, "what is no object or lacks a field is named, not a crash")
        for path in PATHS
        for kind in NO_BODY
    },
    **dict.fromkeys(
        (
            "subscribe-topic-null", "subscribe-no-topic", "unsubscribe-no-topic",
            "broadcast-no-text", "broadcast-no-from",
        ),
        (400, "a missing field is named"),
    ),
    **dict.fromkeys(
        ("subscribe-topic-empty", "broadcast-wild-empty"), (409, "a topic has a character at least")
    ),
    "broadcast-no-topic": (409, "neither a topic nor a scope: nobody is meant"),
    "broadcast-topic-number": (200, "a number is a text, as in every other field"),
}  # fmt: skip
GHOSTS = {"subscribe-unknown-agent", "subscribe-no-id"}
"""Nobody has this id: refused (P6), as 0.4 leaves it out of what it delivers.

By the status, as that is all that 0.4's client looks at (server.ts, /subscribe).
"""
DIFFERENT = {
    "broadcast-wild-$sys_x": (),  # MQTT 4.7.2: no wildcard matches a `$` in front
    "broadcast-wild-prod_edge1_alerts": ("N", "M"),
    "broadcast-wild-prod_edge1_x_alerts": ("M",),
    "broadcast-wild-prod__alerts": ("N", "M"),
    "broadcast-wild-prod_edge1": ("M",),
    "broadcast-wild-logs": ("N", "M"),
    "broadcast-wild-logs_a": ("N", "M"),
    "broadcast-wild-logs_a_b": ("N", "M"),
    "broadcast-wild-logsx": ("N", "M"),
    "broadcast-wild-solo": ("N", "M"),
    "broadcast-wild-a_b": ("M",),
}
"""Whom we deliver to in every version: to all whose pattern matches, to each once."""


class Topics:
    """One conversation about topics."""

    def __init__(self, port: int, bindings: Bindings) -> None:
        self.bindings = bindings
        self.replay = Replay(port=port, bindings=bindings)

    def complaints(self, recorded: dict[str, Any]) -> list[str]:
        """Replay one request; return what came out otherwise than agreed."""
        case, response = recorded["case"], recorded["response"]
        ours = self.replay.send(recorded["request"])
        if case in DELIBERATE:
            status, reason = DELIBERATE[case]
            return [] if ours.status == status else [f"{ours.status}, but {reason}"]
        if case in GHOSTS:
            told = ours.json()
            return [] if (ours.status, told["code"]) == (404, "peer_not_found") else [str(told)]
        if ours.status != response["status"]:
            return [f"status {ours.status}, recorded {response['status']}: {ours.body[:300]!r}"]
        wanted, given = parse(response["body_text"]), ours.json()
        if "delivered_to" in wanted:
            return self._delivered(case, wanted["delivered_to"], given)
        return list(self.bindings.differences(wanted, given))

    def _delivered(self, case: str, wanted: list[str], given: dict[str, Any]) -> list[str]:
        if case in DIFFERENT:
            wanted = [f"<id:{name}>" for name in DIFFERENT[case]]
        ids = {self.bindings.fill(each) for each in wanted} - {"zzzzzzzz"}
        once = len(set(given["delivered_to"])) == len(given["delivered_to"])
        right = given["ok"] is True and once and set(given["delivered_to"]) == ids
        return [] if right else [f"delivered to {given}, recorded {wanted}"]


@pytest.mark.parametrize("version", VERSIONS)
def test_topics_are_as_recorded_but_for_the_listed_differences(
    version: str, machine: Machine
) -> None:
    machine.serve(CLAUDE_PEERS_RATE_LIMIT_RPM="0", CLAUDE_PEERS_MAILBOX_LIMIT="0")
    living = {f"<pid:{name}>": str(machine.bystander().pid) for name in "EF"}
    topics = Topics(machine.port, Bindings(living))
    recording = load(f"topics-agentmesh-{version}.jsonl")
    assert {*DELIBERATE, *GHOSTS, *DIFFERENT} <= {each["case"] for each in recording}
    told = [(each["case"], topics.complaints(each)) for each in recording]
    complaints = [f"{case}: {each}" for case, found in told for each in found]
    assert not complaints, "\n".join(complaints)
