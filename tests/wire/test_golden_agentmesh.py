"""Our broker against the recorded brokers of agentmesh, request by request, in one conversation.

What is about topics is compared in `test_golden_topics.py`, what is the same as upstream's in
`test_golden_upstream.py`: what differs there on purpose differs here as well.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest
from support.golden import Bindings, Replay, parse, session
from support.http import post
from support.machine import Machine
from wire.test_golden_topics import DELIBERATE as TOPICS
from wire.test_golden_topics import DIFFERENT as _WILD
from wire.test_golden_upstream import DELIBERATE as UPSTREAM
from wire.test_golden_upstream import end

VERSIONS = ("0.1", "0.1.1", "0.4")
WILD = sorted(case.removeprefix("broadcast-wild-") for case in _WILD)
ROW = {"qos", "expires_at", "ack_deadline", "retry_count", "max_retries", "signature"}
"""Fields of a message that are there for who has registered as agentmesh's clients do."""
OTHERWISE = {
    "version": "ours",
    "hostname": "as it was told; who tells none is on this machine, by its name",
    "host": "the same",
    "broker_id": "this machine's name and port",
    "agent_type": "who tells none and nothing else of agentmesh's is not taken for Claude Code",
    "transport": "where a webhook leads is its owner's business (P8), and nobody need poll",
    "error": "our words; the code and the remedy are beside it",
    "agents": "as many as there are: some of the odd registrations are refused",
    "peers": "the same",
    "rate_limit_rpm": "as it is set",
    "expires_at": "every message has an end here, and says when",
    "ack_deadline": "only of what has been handed out to be acknowledged",
    "retry_count": "counted by hand-outs",
    "provider": "ours",
    "description": "our words",
    "examples": "our words",
    "last_seen": "a second later",
}
"""Fields whose values are ours."""
NO_BODY = ("empty", "badjson", "null", "array", "object-empty", "string", "number")
BODIES = {"dead-letters": 401, "peek-messages": 400, "ack-messages": 400,
          "federation-status": 400, "verify-signature": 400}  # fmt: skip
MESH: dict[int | None, dict[str, tuple[str, ...]]] = {
    405: {
        "a request is a POST; agentmesh greets on any other method": (
            *(f"get-{path}" for path in BODIES),
            "delete-.well-known-agent.json",
            "delete-agent-card",
            "post-agent-card",
        ),
    },
    403: {
        "no page of another origin may call, so none may ask whether it may": (
            "options-.well-known-agent.json",
            "options-agent-card",
        ),
    },
    400: {
        "a value of the wrong type is named, not stored or shown as a crash": (
            "mesh-list-cap-string",
            "mesh-list-cap-number",
            "mesh-register-caps-string",
            "mesh-register-caps-object",
            "mesh-register-transport-string",
            "ack-missing-list",
            "ack-null-list",
            "ack-number-not-list",
            "ack-string-list",
            "ack-string-ids",
            "ack-mixed",
            "ack-mixed-2",
            "send-qos-1-2",
            "send-qos-1.5",
            "send-ttl-string",
            "dead-letters-limit-string",
        ),
        "a body is an object": tuple(
            f"{path}-body-{kind}" for path in BODIES for kind in NO_BODY if kind != "object-empty"
        ),
        "a missing field is named": (
            "ack-messages-body-object-empty",
            "sec-verify-no-message",
            "sec-verify-null-message",
            "sec-verify-empty",
        ),
    },
    401: {
        "the dead letters of all are the user's": (
            "dead-letters-no-id",
            "dead-letters-body-object-empty",
        ),
        "a token is its peer's: it neither sends nor polls as another (P7)": (
            "token-M-sends-as-N",
            "token-N-polls-M",
        ),
        "a token that is nobody's is refused everywhere, before the body is read": (
            "token-bad-badjson",
            "token-bad-health",
            "federation-status-bad-token",
        ),
    },
    404: {
        "an id that nobody has cannot subscribe: see test_golden_topics.py": (
            "subscribe-unknown-agent",
            "subscribe-no-id",
        ),
    },
    200: {
        "pid, cwd and summary may be absent, as agentmesh 0.4 has it": (
            "mesh-register-no-pid",
            "mesh-register-minimal",
        ),
        "odd registrations break no list": ("mesh-odd-list-cap", "agent-cards-odd"),
        "what is no bearer token says nothing, and schemes have no case (RFC 9110, 11.1)": (
            "token-lowercase-scheme-heartbeat",
            "token-basic-heartbeat",
            "token-no-scheme-heartbeat",
        ),
    },
    None: {
        "no directory shows nobody, as upstream has it": (
            "list-directory-no-cwd",
            "list-repo-no-cwd-no-root",
            "fleet-list-directory-no-cwd",
        ),
        "who left or came back has its mail still": (
            "poll-old-id-B",
            "poll-C-after-unregister",
            "poll-dead-D",
        ),
        "who tells nothing of agentmesh's is not taken for Claude Code": ("mesh-list-type-claude",),
        "who was refused there is here": (
            "mesh-list-machine",
            "mesh-list-all",
            "mesh-odd-list-all",
            "mesh-odd-list-type-hermes",
        ),
        "what was refused or never sent is not there to be read": (
            "poll-M-forged",
            "poll-N-odd",
            "peek-N-after-string-ack",
            "poll-M-end",
            "poll-W-after-refused",
        ),
        "topics: see test_golden_topics.py": (
            "broadcast-from-outsider",
            "broadcast-build",
            "broadcast-text-number",
            "poll-N-wild",
            "poll-M-wild",
            *(f"broadcast-wild-{each}" for each in WILD),
        ),
        "overlapping patterns deliver once (B4-14), and a last value that was had is not new": (
            "poll-FB-retained-again",
            "poll-FB-both",
            "poll-FB-overlap-twice",
        ),
        "an empty value ends the topic's last one": ("poll-FL-empty-retain",),
        "an acknowledgement need not say whose mailbox it is (claude-peers-mcp PR 11)": (
            "ack-no-id",
        ),
        "what was refused for its type is not there": ("poll-FA-qos", "poll-FB-ttl"),
        "a recipient's usual quality holds for topics as well": ("poll-FC-no-lwt",),
        "its webhook does not answer here; see test_webhook_posts.py": (
            "poll-V-after-webhook-200",
            "poll-V-after-webhook-500",
        ),
        "our name": ("get-.well-known-agent.json", "get-agent-card"),
    },
}
"""What is answered otherwise, by our status, None where that is as recorded, and why."""
AGREED: dict[str, int | None] = {
    **{case: difference.status for case, difference in UPSTREAM.items()},
    **{case: status for case, (status, _) in TOPICS.items()},
    **{
        case: status
        for status, reasons in MESH.items()
        for cases in reasons.values()
        for case in cases
    },
}
SOMETIMES = {"poll-V-after-webhook-200", "poll-V-after-webhook-500", "poll-W-after-refused"}
"""Whether a post is under way when its recipient polls is nobody's promise."""
GHOSTS = {"broadcast-build", "broadcast-from-outsider", "broadcast-text-number"}
PLACES = {"mesh-list-all", "mesh-list-machine", "mesh-odd-list-all", "mesh-odd-list-type-hermes"}
LATER = {
    "broadcast-wild-$sys_x", "list-directory-no-cwd", "list-repo-no-cwd-no-root",
    "poll-C-after-unregister", "poll-N-odd", "poll-old-id-B",
}  # fmt: skip
AS_RECORDED: dict[str, set[str]] = {
    "0.1.1": GHOSTS | PLACES | LATER,
    "0.1": LATER | {"poll-dead-D"},
    "0.4": GHOSTS | PLACES | {
        "ack-no-id", "mesh-register-minimal", "mesh-register-no-pid", "token-no-scheme-heartbeat",
        *(f"broadcast-wild-{each}" for each in WILD if each != "$sys_x"),
    },
}  # fmt: skip
"""Differences that are none in this version."""
PLACEHOLDER = re.compile(r"<[a-z]+:\w+>")
OK = 200


def theirs(wanted: dict[str, Any]) -> set[str]:
    """Return the fields of a recorded object that ours is to have the same of.

    A last value, which they never try again (B4-2), is tried as often here as any other message.
    """
    last_value = wanted.get("max_retries") == 0
    return wanted.keys() - OTHERWISE.keys() - ({"max_retries"} if last_value else set())


class Mesh:
    """One conversation with a broker of agentmesh's.

    Args:
        port: of our broker.
        bindings: what the placeholders stand for.
        before: what else happens in the world just before a case.
        agreed: cases that are answered otherwise, by our status, None where that is as recorded.

    Attributes:
        different: cases that were answered otherwise than recorded, as it was agreed.
        skipped: cases about what an earlier refusal left nothing of.
    """

    def __init__(
        self,
        port: int,
        bindings: Bindings,
        before: Mapping[str, Callable[[], object]] = {},
        agreed: Mapping[str, int | None] = AGREED,
    ) -> None:
        self.different: set[str] = set()
        self.skipped: set[str] = set()
        self._bindings = bindings
        self._replay = Replay(port=port, bindings=bindings)
        self._before = before
        self._agreed = agreed

    def complaints(self, each: dict[str, Any]) -> list[str]:
        """Replay one request; return what came out otherwise than agreed."""
        self._before.get(each["case"], lambda: None)()
        if self._is_about_nobody(each["request"]):
            self.skipped.add(each["case"])
            return []
        ours, recorded = self._replay.send(each["request"]), each["response"]
        if each["request"]["path"] == "/register":
            self._registered(each["case"], ours, recorded)
        found = list(self.differences(ours, recorded))
        agreed = self._agreed.get(each["case"], ours.status) or recorded["status"]
        if found and each["case"] in self._agreed and agreed == ours.status:
            self.different.add(each["case"])
            return []
        return found

    def _is_about_nobody(self, request: dict[str, Any]) -> bool:
        """Whether a request needs what an earlier one would have given, that we refuse."""
        try:
            self._bindings.fill((request["body_text"] or "") + request["path"])
            self._bindings.fill("".join(request["headers"].values()))
        except KeyError:
            return True
        return False

    def _registered(self, case: str, ours: Any, recorded: dict[str, Any]) -> None:
        for name in PLACEHOLDER.findall(recorded["body_text"]):
            self._bindings.values.pop(name, None)
        swept = case in ("register-pid-negative", "register-pid-dead")
        if ours.status == OK and (recorded["status"] != OK or swept):
            # The recording does not show it: it was refused, or swept for its pid.
            post(self._replay.port, "/unregister", {"id": ours.json()["id"]})

    def differences(self, ours: Any, recorded: dict[str, Any]) -> Iterator[str]:
        """Yield how an answer differs from the recorded one, but for fields that are ours."""
        if ours.status != recorded["status"]:
            yield f"status {ours.status}, recorded {recorded['status']}: {ours.body[:200]!r}"
        elif "json" in recorded["headers"].get("content-type", "") and recorded["body_text"]:
            yield from self._bodies(parse(recorded["body_text"]), ours.json(), "$")

    def _bodies(self, wanted: Any, given: Any, where: str) -> Iterator[str]:
        match wanted:
            case dict() if isinstance(given, dict):
                for name in theirs(wanted):
                    yield from self._field(name, wanted, given, where)
                missing = wanted.keys() - given.keys() - (set() if "qos" in given else ROW)
                yield from (f"{where}.{name} is missing" for name in missing)
            case [dict() as first, *_] if isinstance(given, list) and _key(first):
                yield from self._people(wanted, given, where)
            case list() if isinstance(given, list) and len(wanted) == len(given):
                for place, (value, other) in enumerate(zip(wanted, given, strict=True)):
                    yield from self._bodies(value, other, f"{where}[{place}]")
            case None if given == "":
                pass  # who tells no directory is nowhere
            case _:
                yield from self._bindings.differences(wanted, given, where)

    def _field(
        self, name: str, wanted: dict[str, Any], given: dict[str, Any], where: str
    ) -> Iterator[str]:
        if name == "delivered_to" and name in given:  # in no order that means anything
            if {self._bindings.fill(each) for each in wanted[name]} != set(given[name]):
                yield f"{where}.{name} is {given[name]}, recorded {wanted[name]}"
        elif name in given:
            yield from self._bodies(wanted[name], given[name], f"{where}.{name}")

    def _people(self, wanted: list[Any], given: list[Any], where: str) -> Iterator[str]:
        """Compare peers or cards by their ids; those that we refused are nowhere here."""
        here = {_key(each): each for each in given}
        known = {self._bindings.values.get(_key(each), ""): each for each in wanted}
        for peer_id, each in known.items():
            if peer_id in here:
                yield from self._bodies(each, here[peer_id], f"{where}[{_key(each)}]")
            elif peer_id:
                yield f"{where} lacks {_key(each)}"
        yield from (f"{where} has {peer_id} besides" for peer_id in here.keys() - known.keys())


def _key(each: dict[str, Any]) -> str:
    """Return the id of a peer or a card, "" if it is none."""
    owner = each.get("agentmesh", each if "cwd" in each else {})
    return str(owner.get("agent_id", owner.get("id", "")))


@pytest.mark.parametrize("version", VERSIONS)
def test_the_broker_answers_as_recorded_but_for_the_listed_differences(
    version: str, machine: Machine
) -> None:
    machine.serve(
        CLAUDE_PEERS_RATE_LIMIT_RPM="0",
        CLAUDE_PEERS_MAILBOX_LIMIT="0",
        AGENTMESH_MAX_RETRIES="3",  # their default
    )
    living = {name: machine.bystander() for name in "ABCDEF"}
    bindings = Bindings({f"<pid:{name}>": str(each.pid) for name, each in living.items()})
    before = {"send-to-dead": lambda: end(living["D"])}
    mesh = Mesh(machine.port, bindings, before)
    recording = session(f"http-agentmesh-{version}.jsonl", "main")
    told = [f"{e['case']}: {each}" for e in recording for each in mesh.complaints(e)]
    assert not told, "\n".join(told)
    assert all(case.startswith("mesh-unregister-") for case in mesh.skipped), mesh.skipped
    mine = {case for reasons in MESH.values() for cases in reasons.values() for case in cases}
    there = {each["case"] for each in recording}
    same = (mine & there) - mesh.different
    assert same - SOMETIMES == AS_RECORDED[version], same ^ AS_RECORDED[version]


def test_what_is_signed_is_signed_and_verified_as_recorded(machine: Machine) -> None:
    machine.serve(
        AGENTMESH_FLEET_SECRET="golden-secret",
        AGENTMESH_FLEET_ID="gold",
        AGENTMESH_MAX_RETRIES="3",
    )
    mesh = Mesh(machine.port, Bindings())
    recording = session("http-agentmesh-0.4.jsonl", "secret")
    told = [f"{e['case']}: {each}" for e in recording for each in mesh.complaints(e)]
    assert not told, "\n".join(told)
    assert "sec-verify-fixed" not in mesh.skipped
