"""Tools about messages for many: topics and scopes."""

from typing import Any

from claude_peers.core.limits import NAME, PATH
from claude_peers.core.text import one_line
from claude_peers.tools import outcome, render
from claude_peers.tools.member import Member
from claude_peers.tools.messages import QOS
from claude_peers.tools.registry import tool


@tool(
    aliases={"to": "topic", "scope": "topic", "text": "message"},
    topic=(
        "A topic such as build/status, for whoever has subscribed; or @machine, @repo, @dir, or "
        "@ and a peer's name in which * stands for anything, such as @api-*."
    ),
    message="What to say. Up to 256 KiB.",
    retain=(
        "Keep it as the topic's last value: each new subscriber gets it once. An empty message "
        "ends that."
    ),
    confirm="For an @scope of more than five peers: how many a first call told you it reaches.",
    qos=QOS,
)
async def broadcast(
    member: Member,
    topic: str,
    message: str,
    retain: bool = False,  # noqa: FBT001, FBT002 - called by name
    confirm: int = 0,
    qos: int | None = None,
) -> str:
    """Send one message to many agents: to all that subscribed to a topic, or to all of a scope.

    Each gets its own copy, kept for an hour if it does not read it. Use it for news that concerns
    all of them; to ask or tell one agent something, use send_message.
    """
    where = "scope" if topic.startswith("@") else "topic"
    body = {where: topic, "text": message, "retain": retain, "confirm": confirm}
    if qos is not None:  # else as each recipient wants it
        body["qos"] = qos
    return told(topic, await member.publish(body))


@tool(topic='A topic, or a pattern: "+" stands for one level, "#" at the end for all that follow.')
async def subscribe(member: Member, topic: str) -> str:
    """Get what other agents publish to a topic with broadcast, from now on, as messages.

    It holds until you unsubscribe, also over restarts. The topic's last value, if its publisher
    had it kept, comes at once.
    """
    answer = await member.call("/subscribe", **member.me, topic=topic)
    lines = [f'Subscribed to "{_word(topic)}"']
    if given := answer.get("retained"):
        lines.append(f"{_word(given)} last value(s) of it are in your mailbox: call check_messages")
    if missed := answer.get("missed"):
        lines.append(
            f"Warning: {_word(missed)} last value(s) had no room in your mailbox. Read your mail, "
            "then unsubscribe and subscribe again."
        )
    return "\n".join([*lines, *_all(answer)])


@tool(topic="The topic or pattern, as you subscribed to it.")
async def unsubscribe(member: Member, topic: str) -> str:
    """Get no more of a topic. What you have got already stays."""
    answer = await member.call("/unsubscribe", **member.me, topic=topic)
    return "\n".join([f'Unsubscribed from "{_word(topic)}"', *_all(answer)])


def told(topic: str, answer: dict[str, Any]) -> str:
    """Return what became of a broadcast: who has it, who refused it and why."""
    if reached := answer.get("preview"):
        names = render.page_of(f"- {_word(each.get('name') or each['id'])}" for each in reached)
        return "\n".join(
            [
                f"Nothing was sent yet: {_word(topic)} reaches {len(reached)} peers.",
                *names,
                *([f"and {len(reached) - len(names)} more"] if len(names) < len(reached) else []),
                f"If all of them need this, call broadcast again with confirm={len(reached)}.",
            ]
        )
    stored, copies = answer.get("delivered_to", ()), answer.get("copies", ())
    lines = [f'Broadcast to "{_word(topic)}" — {len(stored)} recipient(s)']
    if answer.get("duplicate"):
        lines[:0] = [f"{outcome.NOT_AGAIN}, and nobody has it twice; {outcome.ANOTHER}"]
    lines += render.page_of(_copy(each) for each in copies)
    for each in answer.get("refused", ()):
        why = one_line(f"{each['error']}. {each['remedy']}", PATH)
        lines.append(f"Not stored for {_word(each.get('name') or each['id'])}: {why}")
    return "\n".join(lines)


def _copy(view: dict[str, Any]) -> str:
    away = "" if view["presence"] == "present" else f", {_word(view['presence'])}"
    number, state = _word(view["message_id"]), _word(view["state"])
    return f"- {_word(view['name'])} ({_word(view['id'])}{away}): message_id {number}, {state}"


def _all(answer: dict[str, Any]) -> list[str]:
    if "topics" not in answer:  # another implementation's broker
        return []
    listed = ", ".join(_word(each) for each in answer["topics"])
    return [f"Your subscriptions: {listed or 'none'}"]


def _word(value: Any) -> str:
    return one_line(str(value), 4 * NAME)
