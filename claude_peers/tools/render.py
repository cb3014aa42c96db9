"""The text an agent reads about peers and messages; all of it is other agents' word."""

from collections.abc import Iterable
from typing import Any

from claude_peers.core.limits import NAME, PATH, SUMMARY
from claude_peers.core.text import one_line
from claude_peers.wire import envelope

LABEL = envelope.LABEL
PAGE_SIZE = 38_000
"""Characters of one result: clients put longer ones into a file."""


def page_of(texts: Iterable[str]) -> list[str]:
    """Return the texts that make a page, and ask for no more; the first is on it at any length."""
    page: list[str] = []
    size = 0
    for text in texts:
        size += len(text) + 10
        if page and size > PAGE_SIZE:
            break
        page.append(text)
    return page


def fitting(texts: Iterable[str]) -> int:
    """Return how many of the texts make a page."""
    return len(page_of(texts))


def peer(view: dict[str, Any]) -> str:
    """Return a peer as upstream prints one, with its name, its route and what its agent does."""
    fields = (
        ("Name", view.get("name"), NAME),
        ("PID", view.get("pid"), NAME),
        ("CWD", view.get("cwd"), PATH),
        ("Repo", view.get("git_root"), PATH),
        ("TTY", view.get("tty"), NAME),
        ("Summary (self-reported)", view.get("summary"), SUMMARY),
        ("Agent", view.get("agent_type"), NAME),
        ("Fleet", view.get("fleet_id"), NAME),
        ("Device", view.get("device_id"), NAME),
        ("Capabilities", ", ".join(map(str, view.get("capabilities") or ())), SUMMARY),
        ("Push route", view.get("route"), NAME),
        ("Activity", view.get("activity"), NAME),
        ("Last seen", view.get("last_seen"), NAME),
    )
    lines = [f"ID: {one_line(str(view.get('id')), NAME)}"]
    lines += [f"  {name}: {one_line(str(value), most)}" for name, value, most in fields if value]
    return "\n".join(lines)


def message(view: dict[str, Any], *, first_line: bool = False) -> str:
    """Return a message; of one the agent has been given already, the first line is enough."""
    return f"{envelope.head(view)}\n{envelope.body(view, first_line=first_line, limit=None)}"
