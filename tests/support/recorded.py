"""A stand-in for a broker of another implementation that answers in its recorded words.

What a request does is as simple as in `support.upstream`. What is said of it is taken from the
recording: status, the fields of each answer and of each row in it, and the error texts. What our
clients do not find there, the real broker does not tell them either.
"""

import json
from typing import Any

from support import golden
from support.upstream import STAMP, Upstream

UPSTREAM, AGENTMESH = "http-upstream.jsonl", "http-agentmesh-0.4.jsonl"
AGENTMESH_0_1 = "http-agentmesh-0.1.1.jsonl"
_CASES = (
    *("health-empty", "register-A", "send-A-to-B-1", "poll-B-three-in-order", "broadcast-build"),
    *("heartbeat-body-array", "set-summary-body-array", "list-peers-body-array"),
    *("unregister-body-array", "subscribe-body-array", "unsubscribe-body-array"),
)
"""An answer of each kind; 0.0 has no topics."""
_NOBODY = "send-message-body-array"
_UNKNOWN = "post-unknown-object"
_NO_TOPIC = "broadcast-no-topic"


class Recorded(Upstream):
    """Serves the wire of a recording on a thread until it is closed.

    Args:
        port: where to listen.
        recording: `UPSTREAM`, `AGENTMESH` or `AGENTMESH_0_1`.

    Attributes:
        topics: the subscribers of each topic, where the implementation has topics.
    """

    def __init__(self, port: int, recording: str) -> None:
        self.recorded = {each["case"]: each for each in golden.load(recording)}
        self.topics: dict[str, list[str]] = {}
        known = (self.recorded[case] for case in _CASES if case in self.recorded)
        self._first = {each["request"]["path"]: str(each["case"]) for each in known}
        super().__init__(port)

    @property
    def about(self) -> Any:
        """The answer to `GET /health`."""
        return {**self._told(self._first["/health"]), "peers": len(self.peers)}

    def respond(self, path: str, body: dict[str, Any]) -> tuple[int, Any]:
        """Return status and body of the answer to a POST."""
        if path not in self._first or path == "/health":
            case = self.recorded[_UNKNOWN]
            return case["response"]["status"], self._told(_UNKNOWN)
        if path == "/broadcast" and "topic" not in body:
            return self.recorded[_NO_TOPIC]["response"]["status"], self._told(_NO_TOPIC)
        live, told = self._live(path, body), self._told(self._first[path])
        if isinstance(live, list):
            return 200, [_shaped(told[0], each) for each in live]
        if "messages" in live:
            return 200, {"messages": [_shaped(told["messages"][0], m) for m in live["messages"]]}
        if live.get("ok") is False:
            error = self._told(_NOBODY)["error"].replace("undefined", body["to_id"])
            return 200, {"ok": False, "error": error}
        return 200, _shaped(told, {"token": "0" * 64, **live})

    def _live(self, path: str, body: dict[str, Any]) -> Any:
        match path:
            case "/subscribe":
                self.topics.setdefault(body["topic"], []).append(body["id"])
            case "/unsubscribe":
                self.topics[body["topic"]].remove(body["id"])
            case "/broadcast":
                there = self.topics.get(body["topic"], ())
                reached = [each for each in there if each != body["from_id"]]
                for each in reached:
                    self.answer("/send-message", {**body, "to_id": each})
                return {"ok": True, "delivered_to": reached}
        return self.answer(path, body)

    def _told(self, case: str) -> Any:
        return golden.parse(self._text(case))

    def _text(self, case: str) -> str:
        return str(self.recorded[case]["response"]["body_text"])


def _shaped(recorded: dict[str, Any], live: dict[str, Any]) -> dict[str, Any]:
    """Return what is recorded, with the live values of the fields that it has."""
    known = {"hostname": "their-host", "ack_deadline": STAMP, **live}
    shaped = {name: known.get(name, value) for name, value in recorded.items()}
    left = [name for name, value in shaped.items() if "<" in json.dumps(value)]
    assert not left, f"no live value for {left} of {recorded}"
    return shaped
