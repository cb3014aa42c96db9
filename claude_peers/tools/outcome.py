"""What became of messages, in words for the agent that sent them or missed them.

Nothing is said that the broker did not say: one of upstream's answers a send with `ok` alone.
"""

from collections.abc import Mapping
from typing import Any

from claude_peers.core.limits import NAME, PATH
from claude_peers.core.text import one_line, visible
from claude_peers.tools.render import LABEL, fitting
from claude_peers.wire import envelope

DEAD_TEXT = 2_000
"""Characters of a dead letter's text."""
NOT_AGAIN = "Not sent again: it had been sent before"
"""How what became of a repeat begins."""
ANOTHER = "change the text to send a second one."


def sent(answer: Mapping[str, Any], to_id: str, *, intent: str | None = None) -> str:
    """Return what became of a message that was sent, with the broker's warnings."""
    lines = [
        f"{NOT_AGAIN}, and there is one of it; {ANOTHER}"
        if answer.get("duplicate")
        else f"Message sent to peer {_word(answer.get('to_id') or to_id, PATH)}"
    ]
    if "message_id" not in answer:  # an upstream broker says no more
        return lines[0]
    number = _word(answer["message_id"])
    facts = (
        f"message_id {number}, state {_word(answer.get('state'))}",
        f"push route {_word(answer['route'] or 'none')}" if "route" in answer else "",
        f"agent {_word(answer['activity'])}" if answer.get("activity") else "",
        f"{_word(answer['unread'])} unread in its mailbox" if answer.get("unread") else "",
        f"last seen {_word(answer['last_seen'])}" if answer.get("last_seen") else "",
    )
    told = "; ".join(fact for fact in facts if fact)
    lines.append(f"{_word(answer.get('to_name') or answer.get('to_id') or to_id)}: {told}")
    lines += [f"Warning: {one_line(str(each), PATH)}" for each in answer.get("warnings") or ()]
    if intent == "request" and "warnings" in answer:  # an older broker reminds nobody
        lines.append(
            f"You are told once if no answer comes; wait_for_message(reply_to={number}) waits "
            "for one."
        )
    return "\n".join(lines)


def dead_letters(views: list[dict[str, Any]]) -> str:
    """Return messages that died unread, as agentmesh prints them (server.ts, get_dead_letters)."""
    if not views:
        return "No dead letters."
    texts = [_dead_letter(view) for view in views]
    count = fitting(texts)
    text = f"{len(views)} dead letter(s):\n\n{LABEL}\n\n" + "\n\n---\n\n".join(texts[:count])
    if count < len(views):
        text += f"\n\n---\n\n{len(views) - count} more are not shown: use a lower limit."
    return (
        f"{text}\n\n---\n\nThey are not delivered any more. The sender of one, or the user, can "
        "send it again: claude-peers resend MESSAGE_ID"
    )


def _dead_letter(view: dict[str, Any]) -> str:
    who = f"From {_word(view.get('from_id'))} ({_word(view.get('sent_at'))})"
    reason = one_line(str(view.get("reason") or "unknown"), PATH)
    text = visible(str(view.get("text", "")))
    body = envelope.body({**view, "text": text[:DEAD_TEXT]}, limit=None)
    cut = f"\n[cut: {len(text)} characters in all]" if len(text) > DEAD_TEXT else ""
    return f"{who} · message_id {_word(view.get('id'))} — {reason}:\n{body}{cut}"


def _word(value: Any, limit: int = NAME) -> str:
    return one_line(str(value), limit)
