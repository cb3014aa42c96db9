"""Messages of all mailboxes: asked for page by page, shown on lines fit for a terminal."""

import argparse
from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Any

from claude_peers.cli.reach import Broker
from claude_peers.core.limits import NAME
from claude_peers.core.text import one_line

PAGE = 32
"""Messages asked for at once: if all texts were as long as allowed, they would still fit."""
LINE = 200
"""Characters of a text's first line."""
DIGITS = 15
"""Of the longest number of a message."""
_ROOM = 8
"""How many times as much is looked at: what cannot be seen is taken away from it."""

View = dict[str, Any]


def page(broker: Broker, **which: Any) -> list[View]:
    """Return one page of the history; `which` is as in `wire.records.HistoryRequest`."""
    body = {"limit": PAGE, **which}
    found: list[View] = broker.ask("/history", body, authenticate=True)["messages"]
    return found


def pages(broker: Broker, *, after: int = 0) -> Iterator[list[View]]:
    """Yield the history above a message, oldest first, as far as it goes now."""
    found = page(broker, after=after)
    while found:
        yield found
        found = page(broker, after=found[-1]["id"])


def newest(
    broker: Broker, count: int, wanted: Callable[[View], bool], *, before: int
) -> list[View]:
    """Return the last `count` messages below an id that are wanted, oldest first."""
    kept: list[View] = []
    while len(kept) < count and (found := page(broker, before=before, newest=True)):
        before = found[0]["id"]
        kept = [*filter(wanted, found), *kept]
    return kept[-count:] if count else []


def ends(view: View) -> str:
    """Return from whom a message came and to whom it went."""
    sender, recipient = (
        one_line(str(view.get(f"{end}_name") or view[f"{end}_id"]), NAME) for end in ("from", "to")
    )
    return f"{sender} → {recipient}"


def first_line(view: View) -> str:
    """Return the beginning of a message's text."""
    text = str(view["text"]).lstrip()
    line, _, more = text[: LINE * _ROOM].partition("\n")
    return one_line(f"{line} …" if more.strip() else line, LINE)


def moment(told: Any) -> str:
    """Return a time that the broker told, as it is here."""
    try:
        return f"{datetime.fromisoformat(str(told)).astimezone():%Y-%m-%d %H:%M:%S}"
    except (ValueError, OverflowError, OSError):  # another implementation wrote what it liked
        return one_line(str(told), NAME)


def number(text: str) -> int:
    """Return the number of a message, from the command line."""
    # No message has one that JSON could not carry exactly.
    if not (text.isascii() and text.isdecimal() and len(text) <= DIGITS):
        raise argparse.ArgumentTypeError(
            f"{text[:NAME]!r} is not the number of a message; `claude-peers log` shows them"
        )
    return int(text)


def count(most: int) -> Callable[[str], int]:
    """Return what reads a number of messages from the command line."""

    def read(text: str) -> int:
        short = text.isascii() and text.isdecimal() and len(text) <= DIGITS
        if not (short and int(text) <= most):
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number up to {most}")
        return int(text)

    return read
