"""The routes of agentmesh's OpenClaw gateway (openclaw-gateway.ts), for agents that speak HTTP.

It keeps nothing: an agent that registers here is a peer of the broker, its token the broker's, and
its mail waits in the broker's mailbox until it is fetched here. So neither a restart of this
gateway nor one of the broker loses anything. What is fetched counts as read once the answer was
written whole.

What another broker's webhook brings to /incoming is passed on under the sender's and the topic's
name, and marked as not verified: nobody here knows who wrote it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from claude_peers import __version__
from claude_peers.core.errors import BadRequestError, ClaudePeersError
from claude_peers.core.webhooks import read_target
from claude_peers.gateway.errors import Refusal, response_for
from claude_peers.gateway.framing import Head
from claude_peers.wire import codec

Ask = Callable[[str, dict[str, Any], str | None], Any]
"""Asks the broker: path, body, the agent's token; raises `ClaudePeersError`."""
Look = Callable[[], dict[str, Any]]
"""Asks the broker how it is; raises `ClaudePeersError`."""
_MESSAGES: Final = "/messages/"
_INCOMING: Final = "/incoming"
_UNNAMED: Final = "incoming"
"""Whom a message is from whose sender was not told."""
_BAD_GATEWAY: Final = 502
_UNAVAILABLE: Final = 503
_INTERNAL: Final = 500
_UNAUTHORIZED: Final = 401
_OK: Final = 200
_NAMES: Final = {"gateway": f"claude-peers/{__version__}", "version": __version__}


@dataclass(frozen=True, slots=True)
class Told:
    """An answer; `written` is called with whether it went out whole."""

    status: int
    body: dict[str, Any]
    written: Callable[[bool], None] = lambda _whole: None


@dataclass(frozen=True, slots=True, kw_only=True)
class Defaults:
    """What an agent that registers is given unless it tells something else; None is nothing."""

    fleet_id: str | None = None
    device_id: str | None = None
    webhook_url: str | None = None


class OpenClaw:
    """Answers the gateway's requests.

    Args:
        ask, look: the ways to the broker.
        defaults: what agents are given.
    """

    def __init__(self, ask: Ask, look: Look, defaults: Defaults) -> None:
        self._ask = ask
        self._look = look
        self._defaults = defaults
        self._posts: dict[str, Callable[[dict[str, Any], str], dict[str, Any]]] = {
            "/unregister": self._unregister,
            "/send": self._send,
            "/broadcast": self._broadcast,
            "/subscribe": lambda body, token: self._topic("/subscribe", body, token),
            "/unsubscribe": lambda body, token: self._topic("/unsubscribe", body, token),
            _INCOMING: self._incoming,
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
            return self._health()
        if head.path == "/agents":
            found = self._ask("/list-peers", {}, _bearer(head))
            return Told(_OK, {"agents": found})
        if head.path.startswith(_MESSAGES):
            return self._messages(head.path.removeprefix(_MESSAGES), _bearer(head))
        raise _unknown()

    def _health(self) -> Told:
        try:
            broker = self._look()
        except ClaudePeersError as error:
            told = {"status": "degraded", "broker": "unreachable", **_NAMES}
            return Told(_UNAVAILABLE, _refused(error) | told)
        agents = broker.get("peers", 0)
        return Told(_OK, {"status": "ok", "broker": broker, **_NAMES, "agents": agents})

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
        usual = {"fleet_id": self._defaults.fleet_id, "device_id": self._defaults.device_id}
        request = {"agent_name": name, "agent_type": "openclaw", **usual, **given}
        if url := body.get("webhook_url") or self._defaults.webhook_url:
            request["transport"] = {"type": "webhook", "webhook_url": url}
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
        return {"topic": request["topic"]}

    def _incoming(self, body: dict[str, Any], token: str) -> dict[str, Any]:
        """Take what a broker of agentmesh posts: the message is nested, and was looked for outside.

        Who posts it shows the token of the agent that it is for. It is sent without, as it does not
        come from that agent; the broker refuses the name of a peer of its own that has a token.
        """
        message = body.get("message")
        message = message if isinstance(message, dict) else body
        to_id = _needed(message, "to_id")
        self._ask("/peek-messages", {"id": to_id}, token)  # refused unless the token is its own
        request = {
            "from_id": message.get("from_id") or _UNNAMED,
            "to_id": to_id,
            "text": _needed(message, "text"),
            "topic": message.get("topic"),
            "qos": message.get("qos"),
        }
        return {"message_id": self._ask("/send-message", request, None)["message_id"]}

    def _messages(self, agent_id: str, token: str) -> Told:
        taken = self._ask("/poll-messages", {"id": agent_id, "ack_supported": True}, token)
        ids = [message["id"] for message in taken["messages"]]

        def written(whole: bool) -> None:  # noqa: FBT001 - as `gateway.app.Response` has it
            path = "/ack-messages" if whole else "/release-messages"
            if ids:
                self._ask(path, {"id": agent_id, "message_ids": ids}, token)

        return Told(_OK, {"messages": taken["messages"]}, written)


def leads_to(url: str, port: int) -> bool:
    """Whether an address is that of a gateway's own /incoming on a port of its machine.

    There agentmesh's gateway has the mail of its agents posted; here it waits in the broker.
    """
    target = read_target(url)
    return (target.port, target.path) == (port, _INCOMING)


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
    """Return the broker's status for what is the asker's mistake, 502 for what is the broker's."""
    told: int = getattr(error, "status", None) or response_for(error)[0]
    return told if told < _INTERNAL else _BAD_GATEWAY


def _refused(error: ClaudePeersError) -> dict[str, Any]:
    return {"ok": False, "error": error.fact, "code": error.code, "remedy": error.remedy}


def _unknown() -> Refusal:
    return Refusal(
        404,
        "not_found",
        fact="Unknown route",
        remedy="The routes are those of agentmesh's OpenClaw gateway; see docs/webhooks.md.",
    )
