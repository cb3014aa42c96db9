"""The routes of agentmesh's OpenClaw gateway (openclaw-gateway.ts), for agents that speak HTTP.

It keeps nothing: an agent that registers here is a peer of the broker, its token the broker's, and
its mail waits in the broker's mailbox until it is fetched here. So neither a restart of this
gateway nor one of the broker loses anything. What is fetched counts as read once the answer was
written whole.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from claude_peers import __version__
from claude_peers.core.errors import BadRequestError, ClaudePeersError
from claude_peers.gateway.errors import Refusal, response_for
from claude_peers.gateway.framing import Head
from claude_peers.wire import codec

Ask = Callable[[str, dict[str, Any], str | None], Any]
"""Asks the broker: path, body, the agent's token; raises `ClaudePeersError`."""
_MESSAGES: Final = "/messages/"
_BAD_GATEWAY: Final = 502
_UNAUTHORIZED: Final = 401
_OK: Final = 200


@dataclass(frozen=True, slots=True)
class Told:
    """An answer; `written` is called with whether it went out whole."""

    status: int
    body: dict[str, Any]
    written: Callable[[bool], None] = lambda _whole: None


class OpenClaw:
    """Answers the gateway's requests.

    Args:
        ask: the way to the broker.
    """

    def __init__(self, ask: Ask) -> None:
        self._ask = ask
        self._posts: dict[str, Callable[[dict[str, Any], str], dict[str, Any]]] = {
            "/unregister": self._unregister,
            "/send": self._send,
            "/broadcast": self._broadcast,
            "/subscribe": lambda body, token: self._topic("/subscribe", body, token),
            "/unsubscribe": lambda body, token: self._topic("/unsubscribe", body, token),
            "/incoming": self._incoming,
        }

    def answer(self, head: Head, body: bytes) -> Told:
        """Answer a request that has passed the guard; never raises `ClaudePeersError`."""
        try:
            return self._answer(head, body)
        except Refusal as error:
            return Told(error.http_status, _refused(error))
        except ClaudePeersError as error:
            return Told(_status(error), _refused(error))

    def _answer(self, head: Head, body: bytes) -> Told:
        if head.method == "POST":
            return self._post(head, codec.load_object(body))
        if head.path == "/health":
            agents = len(self._ask("/list-peers", {}, None))
            return Told(_OK, {"status": "ok", "version": __version__, "agents": agents})
        if head.path == "/agents":
            found = self._ask("/list-peers", {}, _bearer(head))
            return Told(_OK, {"agents": found})
        if head.path.startswith(_MESSAGES):
            return self._messages(head.path.removeprefix(_MESSAGES), _bearer(head))
        raise _unknown()

    def _post(self, head: Head, body: dict[str, Any]) -> Told:
        if head.path == "/register":
            return Told(_OK, self._register(body))
        serve = self._posts.get(head.path)
        if serve is None:
            raise _unknown()
        given = body.get("token")
        token = given if isinstance(given, str) and given else _bearer(head)
        return Told(_OK, {"ok": True, **serve(body, token)})

    def _register(self, body: dict[str, Any]) -> dict[str, Any]:
        name = _needed(body, "agent_name")
        known = ("capabilities", "summary", "fleet_id", "device_id")
        given = {each: body[each] for each in known if body.get(each) is not None}
        request = {"agent_name": name, "agent_type": "openclaw", **given}
        if body.get("webhook_url"):
            request["transport"] = {"type": "webhook", "webhook_url": body["webhook_url"]}
        joined = self._ask("/register", request, None)
        answer = {"ok": True, "agent_id": joined["id"], "token": joined["token"]}
        secret = joined.get("webhook_secret")
        return answer | ({"webhook_secret": secret} if secret else {})

    def _unregister(self, body: dict[str, Any], token: str) -> dict[str, Any]:
        self._ask("/unregister", {"id": _needed(body, "agent_id")}, token)
        return {}

    def _send(self, body: dict[str, Any], token: str) -> dict[str, Any]:
        request = {
            "from_id": _needed(body, "agent_id"),
            "to_id": _needed(body, "to_id"),
            "text": _needed(body, "text"),
            "qos": body.get("qos"),
        }
        sent = self._ask("/send-message", request, token)
        return {"message_id": sent["message_id"]}

    def _broadcast(self, body: dict[str, Any], token: str) -> dict[str, Any]:
        request = {
            "from_id": _needed(body, "agent_id"),
            "topic": _needed(body, "topic"),
            "text": _needed(body, "text"),
            "qos": body.get("qos"),
            "retain": body.get("retain"),
        }
        return {"delivered_to": self._ask("/broadcast", request, token)["delivered_to"]}

    def _topic(self, path: str, body: dict[str, Any], token: str) -> dict[str, Any]:
        request = {"id": _needed(body, "agent_id"), "topic": _needed(body, "topic")}
        self._ask(path, request, token)
        return {}

    def _incoming(self, body: dict[str, Any], token: str) -> dict[str, Any]:
        """Take what a broker of agentmesh posts: the message is nested, and was looked for outside.

        Who posts it shows the token of the agent that it is for, as which it is sent.
        """
        message = body.get("message")
        message = message if isinstance(message, dict) else body
        to_id = _needed(message, "to_id")
        self._ask("/peek-messages", {"id": to_id}, token)  # refused unless the token is its own
        request = {"from_id": to_id, "to_id": to_id, "text": _needed(message, "text")}
        return {"message_id": self._ask("/send-message", request, token)["message_id"]}

    def _messages(self, agent_id: str, token: str) -> Told:
        taken = self._ask("/poll-messages", {"id": agent_id, "ack_supported": True}, token)
        ids = [message["id"] for message in taken["messages"]]

        def written(whole: bool) -> None:  # noqa: FBT001 - as `gateway.app.Response` has it
            path = "/ack-messages" if whole else "/release-messages"
            if ids:
                self._ask(path, {"id": agent_id, "message_ids": ids}, token)

        return Told(_OK, {"messages": taken["messages"]}, written)


def _needed(body: dict[str, Any], name: str) -> Any:
    value = body.get(name)
    if not isinstance(value, str) or not value:
        raise BadRequestError(f"Missing {name}")
    return value


def _bearer(head: Head) -> str:
    kind, _, token = head.headers.get("authorization", "").partition(" ")
    if kind.lower() != "bearer" or not token.strip():
        raise Refusal(
            _UNAUTHORIZED,
            "invalid_token",
            fact="Invalid agent_id or token",  # agentmesh's words
            remedy="Send Authorization: Bearer with the token that /register returned.",
        )
    return token.strip()


def _status(error: ClaudePeersError) -> int:
    """Return 401 for what the broker refuses for whom it comes from, 400 or 502 for the rest."""
    told = getattr(error, "status", None) or response_for(error)[0]
    if isinstance(error, BadRequestError):
        return told
    return told if told == _UNAUTHORIZED or error.code == "peer_not_found" else _BAD_GATEWAY


def _refused(error: ClaudePeersError) -> dict[str, Any]:
    return {"ok": False, "error": error.fact, "code": error.code, "remedy": error.remedy}


def _unknown() -> Refusal:
    return Refusal(
        404,
        "not_found",
        fact="Unknown route",
        remedy="The routes are those of agentmesh's OpenClaw gateway; see docs/webhooks.md.",
    )
