"""What brokers of other implementations leave undone without a word: refused here, or done here.

They pass over what they do not know. A broadcast to a scope, which names no topic, has no
recipients there or breaks on the missing topic; a last value is not kept; a list that is to be
narrowed by what they do not know comes whole. None of that may look like what was asked for.
"""

from collections.abc import Mapping
from typing import Any, Final

from claude_peers.client.errors import NotOfferedError

_OURS: Final = "claude-peers/"
_AGENTMESH: Final = "agentmesh/"
_FORGETFUL: Final = "agentmesh/0.1"
"""The versions that have topics, and keep no last value of them."""
_FILTERS: Final = {
    "fleet_id": ("fleet_id", "fleets"),
    "device_id": ("device_id", "devices"),
    "agent_type": ("agent_type", "types of agents"),
    "capabilities": ("capabilities", "capabilities"),
    "online_only": ("online", "presence"),
}
"""What narrows a list: the field of a peer that tells, and what a broker lacks without it."""


def speaks_agentmesh(health: Mapping[str, Any]) -> bool:
    """Whether a broker is one of agentmesh's, by what it says of itself at `/health`."""
    return str(health.get("version")).startswith(_AGENTMESH)


def check(operation: str, body: Mapping[str, Any], health: Mapping[str, Any]) -> None:
    """Refuse a request that such a broker would misunderstand, before it is sent.

    Raises:
        NotOfferedError: it is a broadcast to a scope, or one to be kept where nothing is.
    """
    if operation != "/broadcast" or _is_ours(health):
        return
    if "topic" not in body:
        raise NotOfferedError("scopes")
    if body.get("retain") and str(health.get("version")).startswith(_FORGETFUL):
        raise NotOfferedError("last values")


def narrowed(
    operation: str, body: Mapping[str, Any], answer: Any, health: Mapping[str, Any]
) -> Any:
    """Return the answer to a request, narrowed as it asked if it was for a list of peers.

    Raises:
        NotOfferedError: the broker does not tell what the list is to be narrowed by.
    """
    if operation != "/list-peers" or not isinstance(answer, list) or _is_ours(health):
        return answer
    wanted = {each: told for each, told in body.items() if each in _FILTERS and told}
    for each in wanted:
        field, lacked = _FILTERS[each]
        if not all(field in peer for peer in answer):
            raise NotOfferedError(lacked)
    return [peer for peer in answer if all(_meets(peer, *each) for each in wanted.items())]


def _is_ours(health: Mapping[str, Any]) -> bool:
    """Whether it is a broker of this program: one of another user folder knows everything too."""
    return str(health.get("version")).startswith(_OURS)


def _meets(peer: Mapping[str, Any], wanted: str, value: Any) -> bool:
    told = peer[_FILTERS[wanted][0]]
    match wanted:
        case "capabilities":
            return all(each in (told or ()) for each in value)
        case "online_only":
            return bool(told)
        case _:
            return bool(told == value)
