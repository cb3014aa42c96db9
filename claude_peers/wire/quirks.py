"""One function per oddity of another implementation, with where it comes from."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

from claude_peers.core.errors import PeerNotFoundError
from claude_peers.core.limits import NAME
from claude_peers.core.text import one_line


def scalar_as_text(value: Any) -> str:
    """Return a JSON scalar as upstream's database stored it where text was wanted.

    claude-peers-mcp broker.ts binds the raw value, SQLite's TEXT affinity does the rest: true is
    "1", 3.5 is "3.5", 5.0 is "5".
    """
    if isinstance(value, bool):
        return "1" if value else "0"
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:  # noqa: PLR2004 - exact in a double
        return str(int(value))
    return str(value)


ACKNOWLEDGEMENT: Final[Mapping[str, str]] = MappingProxyType(
    {"peer_id": "id", "ids": "message_ids"}
)
"""What an acknowledgement's fields are called elsewhere, and by us.

`{id, message_ids}` agentmesh 0.1.1, `{peer_id, ids}` claude-peers-mcp PR 15 and 25,
`{ids}` issue 65, `{message_ids}` PR 11. The last two do not say whose mailbox it is.
"""


def renamed(body: dict[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    """Return a body whose fields have our names; `names` has ours by others', ours wins."""
    others = {ours: body.get(name) for name, ours in names.items() if body.get(ours) is None}
    return body | others if others else body


def refused(path: str, told: dict[str, Any]) -> dict[str, Any]:
    """Return a refusal with the fields its clients read although nothing was done.

    agentmesh 0.4 broker.ts, /broadcast: its callers count `delivered_to` before they look at `ok`.
    """
    return told | {"delivered_to": []} if path == "/broadcast" else told


def agent_not_found(peer_id: str) -> PeerNotFoundError:
    """Return that nobody has an id, in the words of agentmesh 0.4 broker.ts, /send-message."""
    error = PeerNotFoundError(peer_id)
    error.fact = f"Agent {one_line(peer_id, NAME)} not found"
    return error


def client_name(agent_type: str | None, client: str | None) -> str:
    """Return the client's name from our `client` or agentmesh's `agent_type` field."""
    return client or agent_type or ""
