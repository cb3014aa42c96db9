"""Agent cards by their paths; what a caller sees of a peer follows the rules of sharing."""

from typing import Any

from claude_peers.broker.broker import Broker
from claude_peers.core.models import Peer, Presence
from claude_peers.core.sharing import as_seen_from
from claude_peers.gateway.caller import HttpCaller
from claude_peers.gateway.errors import Refusal
from claude_peers.wire import cards


def page(broker: Broker, caller: HttpCaller, path: str) -> Any:
    """Return the broker's card, a peer's, or those of all who are there.

    Raises:
        Refusal: nobody there has that id.
    """
    base = _base(broker, caller)
    if path == "/agent-cards":
        stored = broker.roster.stored()
        present = [peer for peer in stored if peer.presence is Presence.PRESENT]
        return [_card(broker, caller, peer, base) for peer in present]
    if not path.startswith("/agent-card/"):
        return cards.broker_card(base)
    peer = broker.roster.get(path.removeprefix("/agent-card/"))
    if peer is None or peer.presence is not Presence.PRESENT:
        raise Refusal(
            404, "not_found", fact="Agent not found", remedy="GET /agent-cards lists who is there."
        )
    return _card(broker, caller, peer, base)


def _card(broker: Broker, caller: HttpCaller, peer: Peer, base: str) -> dict[str, Any]:
    seen = as_seen_from(peer, caller.machine)
    return cards.agent_card(seen, base, online=broker.peers.online(peer))


def _base(broker: Broker, caller: HttpCaller) -> str:
    """Return the broker's address; not from the request, which anybody may have written."""
    if caller.machine:
        return f"https://{broker.host}:{caller.facts.port}"
    return f"http://127.0.0.1:{caller.facts.port}"
