"""What happened to a message, step by step, in words for whoever asks: agent or person."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from claude_peers.core.limits import NAME, PATH
from claude_peers.core.text import one_line

_EVENTS = {
    "lease": "handed to the recipient's client",
    "push": "given to the recipient's client over {via}; no evidence yet that it was read",
    "return": "came back unread ({via})",
    "admit": "offered: the recipient has unmuted the sender",
    "readdress": "passed on to the next holder of the name, {via}",
    "see": "read by the recipient ({via})",
    "answer": "answered by {via}",
    "expire": "died: {via}",
    "give_up": "died: {via}",
}
"""The steps of a message, by `core.delivery.Event`; the broker may know others."""
AGAIN = " again"
"""What a session adds to the route of a push that it repeats."""


def told(view: Mapping[str, Any]) -> str:
    """Return what happened to a message, step by step, and what happens next."""
    number, ends = _word(view.get("id")), (_end(view, "from"), _end(view, "to"))
    lines = [f"Message {number} from {ends[0]} to {ends[1]}"]
    if view.get("intent"):
        lines[0] += f", intent {_word(view['intent'])}"
    if view.get("reply_to"):
        lines[0] += f", reply to {_word(view['reply_to'])}"
    lines.append(f"  {_word(view.get('sent_at'))}  accepted")
    lines += _steps(view.get("steps") or ())
    state = f"State: {_word(view.get('state'))}"
    lines.append(
        f"{state} ({one_line(str(view['reason']), PATH)})" if view.get("reason") else state
    )
    if view.get("next"):
        lines.append(f"Next: {one_line(str(view['next']), PATH)}")
    return "\n".join(lines)


def _end(view: Mapping[str, Any], which: str) -> str:
    """Return the sender or the recipient: its name, if that is known, and its id."""
    name, peer_id = view.get(f"{which}_name"), _word(view.get(f"{which}_id"))
    return f"{_word(name)} ({peer_id})" if name else peer_id


def _steps(steps: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return a line for each step; two that repeat again and again are told once."""
    lines: list[str] = []
    kinds = [(step.get("event"), step.get("via")) for step in steps]
    place = 0
    while place < len(steps):
        times = _repeats(kinds, place)
        if times > 1:
            last = _moment(steps[place + 2 * times - 1].get("at"))
            lines.append(f"  {last}  the two steps above, {times} more times until then")
            place += 2 * times
        else:
            lines.append(f"  {_moment(steps[place].get('at'))}  {_step(steps[place])}")
            place += 1
    return lines


def _repeats(kinds: Sequence[tuple[Any, Any]], place: int) -> int:
    """Return how often the two steps before a place are repeated from there on."""
    pair, times = kinds[max(0, place - 2) : place], 0
    while len(pair) == 2 and kinds[place + 2 * times : place + 2 * times + 2] == pair:  # noqa: PLR2004 - a pair
        times += 1
    return times


def _step(step: Mapping[str, Any]) -> str:
    event, via = _word(step.get("event")), _word(step.get("via") or "no further word")
    if event == "push" and via.endswith(AGAIN):
        return f"given to it again over {via.removesuffix(AGAIN)}; it has been idle all the time"
    return _EVENTS[event].format(via=via) if event in _EVENTS else f"{event} ({via})"


def _moment(seconds: Any) -> str:
    if not isinstance(seconds, (int, float)):
        return "at an unknown time"
    moment = datetime.fromtimestamp(seconds, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _word(value: Any) -> str:
    return one_line(str(value), NAME)
