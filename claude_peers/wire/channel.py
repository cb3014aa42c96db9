"""A message as the `notifications/claude/channel` that an agent's client renders.

The contract: `content` is a string, `meta` holds strings only, under keys of letters, digits and
underscore; one other value drops the whole notification without a word. Absent beats empty.
"""

from typing import Any

from claude_peers.core.limits import NAME, PATH, SUMMARY, TOPIC
from claude_peers.core.text import attribute
from claude_peers.wire import envelope

METHOD = "notifications/claude/channel"


def notification(message: dict[str, Any], sender: dict[str, Any] | None) -> dict[str, Any]:
    """Return the JSON-RPC notification for a pushed message (`wire.records.message_view`)."""
    return {
        "jsonrpc": "2.0",
        "method": METHOD,
        "params": {"content": content(message), "meta": meta(message, sender or {})},
    }


def content(message: dict[str, Any]) -> str:
    """Return the text, harmless, and as a preview if it is long."""
    return envelope.body(message)


def meta(message: dict[str, Any], sender: dict[str, Any]) -> dict[str, str]:
    """Return who, where and when, as the contract allows it."""
    values = {
        "from_id": (message.get("from_id"), NAME),
        "from_name": (sender.get("name"), NAME),
        "from_summary": (sender.get("summary"), SUMMARY),
        "from_cwd": (sender.get("cwd"), PATH),
        "sent_at": (message.get("sent_at"), NAME),
        "message_id": (message.get("id"), NAME),
        "reply_to": (message.get("reply_to"), NAME),
        "intent": (message.get("intent"), NAME),
        "thread": (message.get("thread"), NAME),
        "topic": (message.get("topic"), TOPIC),
        "retained": ("true" if message.get("retained") else None, NAME),
        "inherited": ("true" if message.get("inherited") else None, NAME),
        "verified": ("true" if message.get("verified") else "false", NAME),
        "redelivered": (message.get("redelivered"), NAME),
    }
    lines = {name: attribute(str(value), most) for name, (value, most) in values.items() if value}
    return {name: line for name, line in lines.items() if line}
