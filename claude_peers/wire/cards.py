"""Agent cards in agentmesh 0.4's shape (broker.ts, brokerCard and agentCard).

It draws them from A2A's. There is no A2A endpoint behind them: a card tells who is there and what
it can do, and messages go the ways of docs/api.md.
"""

from typing import Any, Final

from claude_peers import __version__
from claude_peers.core.models import Peer
from claude_peers.core.profile import WEBHOOK, agent_type, transport

_MODES: Final = ["application/json"]
_AGENT_MODES: Final = ["text/plain", "application/json"]
_AUTHENTICATION: Final = {"schemes": ["Bearer"]}
_SKILLS: Final = (
    ("send-message", "Send Message", "Send a message to one agent.", ("messaging",),
     "POST /send-message { from_id, to_id, text }"),
    ("broadcast", "Broadcast", "Publish a message to a topic or a scope.",
     ("pub-sub", "messaging"), "POST /broadcast { from_id, topic, text }"),
    ("subscribe", "Subscribe", "Subscribe to a topic, or to all that a pattern (+, #) matches.",
     ("pub-sub",), ""),
    ("list-agents", "List Agents", "Find agents by fleet, device, type or capability.",
     ("discovery",), ""),
    ("register", "Register", "Join, and get an id and a token.", ("identity",), ""),
)  # fmt: skip


def broker_card(base: str) -> dict[str, Any]:
    """Return the broker's own card; `base` is its address as a URL."""
    return {
        "name": "claude-peers broker",
        "description": "Messages between one user's coding agents: direct, by topic, by scope.",
        "url": base,
        "version": __version__,
        "provider": {"organization": "claude-peers", "url": base},
        "capabilities": _abilities(streaming=True, posts=True),
        "authentication": _AUTHENTICATION,
        "defaultInputModes": _MODES,
        "defaultOutputModes": _MODES,
        "skills": [
            {"id": skill, "name": name, "description": about, "tags": list(tags)}
            | ({"examples": [example]} if example else {})
            for skill, name, about, tags, example in _SKILLS
        ],
    }


def agent_card(peer: Peer, base: str, *, online: bool) -> dict[str, Any]:
    """Return a peer's card, as whoever asks may see the peer."""
    profile, kind = peer.profile, agent_type(peer.client, peer.profile)
    parts = (profile.fleet_id, profile.device_id, profile.agent_name)
    return {
        "name": "/".join(part for part in parts if part) or peer.id,
        "description": peer.summary or f"{kind or 'unknown'} agent on {peer.host}",
        "url": f"{base}/agent-card/{peer.id}",
        "version": "0.1.0",
        "capabilities": _abilities(streaming=online, posts=transport(peer.route) == WEBHOOK),
        "authentication": _AUTHENTICATION,
        "defaultInputModes": _AGENT_MODES,
        "defaultOutputModes": _AGENT_MODES,
        "skills": [_skill(each) for each in profile.capabilities] or [_messaging()],
        "agentmesh": {
            "agent_id": peer.id,
            "agent_type": kind,
            "fleet_id": profile.fleet_id,
            "device_id": profile.device_id,
            "online": online,
        },
    }


def _abilities(*, streaming: bool, posts: bool) -> dict[str, bool]:
    return {
        "streaming": streaming,
        "pushNotifications": posts,
        "stateTransitionHistory": False,
    }


def _skill(capability: str) -> dict[str, Any]:
    words = capability.replace("-", " ").replace("_", " ").split()
    name = " ".join(word[:1].upper() + word[1:] for word in words)
    return {"id": capability, "name": name, "tags": [capability]}


def _messaging() -> dict[str, Any]:
    about = "Receive and send messages via the claude-peers broker."
    return {"id": "messaging", "name": "Messaging", "description": about, "tags": ["messaging"]}
