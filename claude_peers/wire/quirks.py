"""One function per oddity of another implementation, with where it comes from."""

from collections.abc import Mapping
from typing import Any


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


def acknowledged(body: Mapping[str, Any]) -> dict[str, Any]:
    """Return an acknowledgement in agentmesh's shape, whichever of four it came in.

    `{id, message_ids}` agentmesh 0.1.1, `{peer_id, ids}` claude-peers-mcp PR 15 and 25,
    `{ids}` issue 65, `{message_ids}` PR 11. The last two do not say whose mailbox it is.
    """
    named = body.get("message_ids")
    reshaped = {
        "id": body.get("id", body.get("peer_id")),
        "message_ids": body.get("ids") if named is None else named,
    }
    return reshaped | {"via": body["via"]} if "via" in body else reshaped


def client_name(agent_type: str | None, client: str | None) -> str:
    """Return the client's name from our `client` or agentmesh's `agent_type` field."""
    return client or agent_type or ""
