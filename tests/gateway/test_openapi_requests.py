"""Requests made from the API document are answered as it says, whatever is in them.

They are made by schemathesis, with all of its checks, for every operation and twice: of a broker
process as any program of the user would make them, and of a broker in this process as the user,
with proof of the secret. Nothing is left out: here stepping down is only noted, and machines are
invited, join and are revoked. A hook is posted to with its token, whoever asks.

They are the same requests each time; CLAUDE_PEERS_FUZZ=200 makes so many others of each.
"""

import json
import os
from collections import defaultdict
from collections.abc import Collection, Iterator
from typing import Any
from urllib.parse import urlencode

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, settings
from support import http
from support.inproc import SECRET, running
from support.machine import Machine

from claude_peers.broker.machines import Doors
from claude_peers.broker.operations import OPERATIONS
from claude_peers.core.delivery import DELIVERIES
from claude_peers.gateway import openapi
from claude_peers.wire import proof

EXAMPLES = os.environ.get("CLAUDE_PEERS_FUZZ")
BOUNDED = settings(
    # Of random content, besides those for every edge of the schema.
    max_examples=int(EXAMPLES or 10),
    derandomize=not EXAMPLES,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
MOMENT = 0.01
"""Seconds that a poll waits for a message at most, whatever it asks for."""
HASH = "0123456789abcdef" * 4
MESSAGE, DEAD = -11, -12
GOOD: dict[str, Any] = {
    "/register": {"name": "gamma", "cwd": "/p", "summary": "works"},
    "/heartbeat": {"id": "ALPHA"},
    "/subscribe": {"id": "BETA", "topic": "build/#"},
    "/unsubscribe": {"id": "BETA", "topic": "test/+"},
    "/broadcast": {"from_id": "ALPHA", "topic": "build/status", "text": "green"},
    "/set-summary": {"id": "ALPHA", "summary": "reads"},
    "/list-peers": {"scope": "machine", "gone": True},
    "/unregister": {"id": "LEAVER"},
    "/send-message": {"from_id": "ALPHA", "to_id": "BETA", "text": "hi", "reply_to": MESSAGE},
    "/poll-messages": {"id": "ALPHA"},
    "/peek-messages": {"id": "BETA"},
    "/ack-messages": {"id": "BETA", "message_ids": [MESSAGE]},
    "/release-messages": {"peer_id": "BETA", "ids": [MESSAGE]},
    "/pushed-messages": {"id": "BETA", "message_ids": [MESSAGE], "via": "channel"},
    "/message-status": {"message_id": MESSAGE},
    "/dead-letters": {"id": "BETA"},
    "/resend-message": {"message_id": DEAD},
    "/rename": {"id": "LEAVER", "name": "away"},
    "/mute": {"id": "LEAVER", "peer_id": "ALPHA"},
    "/set-route": {"id": "ALPHA", "route": "channel", "activity": "idle"},
    "/add-keys": {"id": "KEYED", "keys": ["resume:1"]},
    "/history": {"limit": 50},
    "/admin/step-down": {},
    "/ledger": {},
    "/join": {"code": "CODE", "token_hash": HASH},
    "/admin/invite": {"name": "laptop", "addresses": ["here.example:7899"]},
    "/admin/revoke": {"name": "tablet"},
    "/admin/machines": {},
    "/webhook/set": {"id": "BETA", "url": "http://127.0.0.1:9/", "format": "standard"},
    "/webhook/remove": {"id": "ALPHA"},
    "/admin/webhooks": {},
    "/admin/hook-token": {"name": "ci", "topic": "build/#"},
    "/admin/hook-tokens": {},
    "/admin/revoke-hook-token": {"name": "old-hook"},
    "/hook/{topic}": {"build": "green"},
}
"""For each operation a body that is served, besides those that are made up."""
USERS = {each.path for each in OPERATIONS if each.user} | {
    "/add-keys", "/join", "/mute", "/rename", "/webhook/set", "/webhook/remove",
}  # fmt: skip
"""What only the user is served, or who has a token or a code."""
HOOK = "/hook/{topic}"
FORM = "application/x-www-form-urlencoded"


def closed(schema: Any) -> Any:
    """Return a schema by which a field that is not described is an error."""
    match schema:
        case {"type": "object", "properties": _}:
            parts = {name: closed(part) for name, part in schema.items()}
            return parts | {"additionalProperties": False}
        case dict():
            return {name: closed(part) for name, part in schema.items()}
        case list():
            return [closed(part) for part in schema]
    return schema


def strict() -> Any:
    """Return the document with good bodies, and answers that hold only what is described."""
    document = json.loads(openapi.document())
    schemas = document["components"]["schemas"]
    document["components"]["schemas"] = {
        name: part if name.endswith("Request") else closed(part) for name, part in schemas.items()
    }
    for path, body in GOOD.items():
        content = document["paths"][path]["post"]["requestBody"]["content"]
        content["application/json"]["example"] = body
    return document


SCHEMA = schemathesis.openapi.from_dict(strict())


class Target:
    """A broker with peers, mail and a dead letter.

    Attributes:
        statuses: what was answered so far, by path.
        known: what stands for what there is, in `GOOD`.
        hook: a hook's token, for any topic.
    """

    hook: str

    def __init__(self, port: int) -> None:
        self.port = port
        self.base = f"http://127.0.0.1:{port}"
        self.statuses: defaultdict[str, set[int]] = defaultdict(set)
        self.session = requests.Session()
        self.session.trust_env = False
        self.known: dict[Any, Any] = {"ALPHA": self._join("alpha", pid=os.getpid())}
        self.known |= {each: self._join(each.lower()) for each in ("BETA", "LEAVER")}
        self.known[DEAD] = self._send("BETA")
        for _ in range(DELIVERIES):
            self._ask("/poll-messages", {"id": self.known["BETA"], "ack_supported": True})
            taken = {"id": self.known["BETA"], "message_ids": [self.known[DEAD]]}
            self._ask("/release-messages", taken)
        self._ask("/poll-messages", {"id": self.known["BETA"], "ack_supported": True})
        self.known[MESSAGE] = self._send("BETA")

    def check(self, case: Any, **headers: str) -> None:
        """Make a request and fail unless its answer is as the document says."""
        body = case.body
        if isinstance(body, dict):
            if case.media_type == FORM and not urlencode(body, doseq=True):
                return  # what requests sends in pieces, which is refused: there is nothing to send
            filled = {name: self._filled(value) for name, value in body.items()}
            for name in ("wait_s", "wait_ms"):
                if isinstance(filled.get(name), int | float):
                    filled[name] = min(filled[name], MOMENT)
            if filled != body:
                case.body = filled
        if case.operation.path == HOOK:  # not the caller's rights, but the token's
            headers = {"Authorization": f"Bearer {self.hook}"}
        answer = case.call_and_validate(
            base_url=self.base,
            session=self.session,
            headers=headers or None,
        )
        self.statuses[case.operation.path].add(answer.status_code)

    def proved(self) -> dict[str, str]:
        """Return the header by which this session's connection is the user's."""
        told = self.session.get(f"{self.base}/health", headers={proof.NONCE_HEADER: "n"})
        answer = proof.client_proof(SECRET, told.headers[proof.CHALLENGE_HEADER])
        return {proof.AUTH_HEADER: answer}

    def close(self, *, besides: Collection[str] = ()) -> None:
        """Fail if a message is missing, or all requests to an operation were refused."""
        self.session.close()
        served = {200, 202}
        refused = {path for path, statuses in self.statuses.items() if not served & statuses}
        assert refused <= set(besides), refused
        assert self._ask("/ledger", {})["balanced"]

    def _filled(self, value: Any) -> Any:
        if isinstance(value, list):
            return [self._filled(each) for each in value]
        return self.known.get(value, value) if isinstance(value, str | int) else value

    def _join(self, name: str, **more: Any) -> str:
        return str(self._ask("/register", {"name": name, **more})["id"])

    def _send(self, to: str) -> int:
        body = {"from_id": self.known["ALPHA"], "to_id": self.known[to], "text": "hello"}
        return int(self._ask("/send-message", body)["message_id"])

    def _ask(self, path: str, body: Any) -> Any:
        return http.post(self.port, path, body).json()


@pytest.fixture(scope="module")
def as_program(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    """Return a broker process, its limits lifted."""
    machine = Machine(tmp_path_factory.mktemp("openapi") / "machine")
    limits = {"CLAUDE_PEERS_RATE_LIMIT_RPM": "0", "CLAUDE_PEERS_MAILBOX_LIMIT": "0"}
    try:
        machine.serve(**limits)
        target = Target(machine.port)
        target.hook = machine.cli("hook-token", "#", "--name", "any", "--signed").stdout.strip()
        yield target
        target.close(besides=USERS)
    finally:
        machine.close()


@pytest.fixture(scope="module")
def as_user() -> Iterator[Target]:
    """Return a broker in this process that listens, as it says, for other machines."""
    with running() as broker:
        doors = Doors(addresses=("192.0.2.1:7899",), pin=b"p" * 32)
        held: list[float] = []
        broker.broker.machines.doors = lambda: doors
        broker.broker.step_down = held.append
        target = Target(broker.port)
        (shown,) = target.proved().values()
        keyed = {"name": "keyed", "keys": ["resume:0"], "proof": shown}
        told = target.session.post(f"{target.base}/register", json=keyed)
        target.known |= {"KEYED": told.json()["id"], "TOKEN": told.json()["token"]}
        broker.run(broker.broker.machines.invite("tablet", ttl=None))
        broker.run(broker.broker.hooks.make("old-hook", "build/#"))
        _, target.hook = broker.run(broker.broker.hooks.make("any", "#", signed=True))
        invited = broker.run(broker.broker.machines.invite("phone", ttl=None))
        target.known["CODE"] = invited[1].code
        yield target
        target.close()
        assert bool(held) == (200 in target.statuses["/admin/step-down"])


def by_program(schema: Any) -> Any:
    @schema.parametrize()
    @BOUNDED
    def test(as_program: Target, case: Any) -> None:
        as_program.check(case)

    return test


def by_user(schema: Any) -> Any:
    @schema.parametrize()
    @BOUNDED
    def test(as_user: Target, case: Any) -> None:
        headers = as_user.proved()
        if case.operation.path == "/add-keys":  # what an agent does, not its user
            headers |= {"Authorization": f"Bearer {as_user.known['TOKEN']}"}
        as_user.check(case, **headers)

    return test


# One function for each operation: schemathesis gives all tests of a function the same id, and of
# those that have the same id xdist runs one.
# The stream of events has no end; tests/gateway/test_events.py reads it.
for _path in [each for each in json.loads(openapi.document())["paths"] if each != "/events"]:
    _name = _path.strip("/").replace("/", "_").replace("-", "_") or "root"
    _only = SCHEMA.include(path=_path)
    globals()[f"test_a_program_is_answered_as_the_document_says_{_name}"] = by_program(_only)
    globals()[f"test_the_user_is_answered_as_the_document_says_{_name}"] = by_user(_only)
