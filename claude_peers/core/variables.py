"""How the values of environment variables are read: the variable's name and its text go in.

Each raises `SettingsError` with the remedy if the value cannot be used.
"""

from collections.abc import Callable

from claude_peers.core.delivery import MOST_DELIVERIES
from claude_peers.core.errors import SettingsError
from claude_peers.core.identity import as_name, is_name

LOOPBACK = ("127.0.0.1", "localhost", "::1")


def text(_name: str, value: str) -> str:
    """Return the value as it is."""
    return value


def number(least: int, most: int) -> Callable[[str, str], int]:
    """Return a reader of whole numbers from `least` to `most`."""

    def read(name: str, value: str) -> int:
        digits = value.isascii() and value.isdecimal() and len(value) < 10  # noqa: PLR2004 - no number of ours is longer
        number = int(value) if digits else least - 1
        if not least <= number <= most:
            raise SettingsError(name, value, f"Use a whole number from {least} to {most}.")
        return number

    return read


def deliveries(name: str, value: str) -> int:
    """Return how often a message is handed out: once, and once more for each retry."""
    again = name == "AGENTMESH_MAX_RETRIES"
    return number(1 - again, MOST_DELIVERIES - again)(name, value) + again


def choice(*choices: str) -> Callable[[str, str], str]:
    """Return a reader that takes one of some words."""

    def read(name: str, value: str) -> str:
        if value not in choices:
            raise SettingsError(name, value, f"Use one of {', '.join(choices)}.")
        return value

    return read


def flag(name: str, value: str) -> bool:
    """Return whether the value is 1; 0 is no."""
    if value not in ("0", "1"):
        raise SettingsError(name, value, "Use 1 for yes or 0 for no.")
    return value == "1"


def words(_name: str, value: str) -> tuple[str, ...]:
    """Return what is separated by commas."""
    return tuple(word.strip() for word in value.split(",") if word.strip())


def peer_name(name: str, value: str) -> str:
    """Return a peer's name."""
    if name == "AGENTMESH_AGENT_NAME":  # any text there; a name that can be typed here
        return as_name(value)
    if not is_name(value):
        raise SettingsError(
            name,
            value,
            "Use up to 64 of a-z, 0-9, dot, dash and underscore, a letter or digit first.",
        )
    return value


def bind(name: str, value: str) -> str:
    """Return addresses of this machine, separated by commas."""
    if value in LOOPBACK:
        return value
    from ipaddress import ip_address  # not loaded where nobody sets this

    try:
        found = [ip_address(each.strip()) for each in value.split(",")]
    except ValueError:
        found = []
    if not found or any(each.is_multicast or str(each) == "::" for each in found):
        raise SettingsError(
            name,
            value,
            "Use addresses of this machine, separated by commas, or 0.0.0.0 for all in IPv4.",
        )
    return ",".join(map(str, found))


def address(name: str, value: str) -> str:
    """Return an IPv4 address, with a port if there is one."""
    from ipaddress import ip_address  # not loaded where nobody sets this

    host, colon, port = value.partition(":")
    try:
        four = ip_address(host).version == 4  # noqa: PLR2004 - IP's version
    except ValueError:
        four = False
    if not four or (colon and not (port.isdecimal() and 0 < int(port[:6]) < 1 << 16)):
        raise SettingsError(name, value, "Use an IPv4 address, with `:PORT` if need be.")
    return value


def hosts(name: str, value: str) -> tuple[str, ...]:
    """Return hosts, or `HOST:PORT`, in lower case."""
    hosts = tuple(each.strip().lower() for each in value.split(",") if each.strip())
    if any(mark in host for host in hosts for mark in "/@* \t"):
        raise SettingsError(
            name, value, "Use hosts or host:port, separated by commas, such as hooks.example.com."
        )
    return hosts


def webhook_url(name: str, value: str) -> str:
    """Return an address to which mail can be posted."""
    from claude_peers.core.webhooks import (  # not loaded where nobody sets this
        WebhookRefusedError,
        read_target,
    )

    try:
        read_target(value)
    except WebhookRefusedError as error:
        raise SettingsError(name, value, f"{error.fact}; use http://127.0.0.1:PORT/PATH.") from None
    return value


def broker_url(name: str, value: str) -> str:
    """Return a broker's URL in its one spelling."""
    from urllib.parse import urlsplit  # not loaded where nobody sets this

    try:
        parts = urlsplit(value)
        scheme, host, port = parts.scheme, parts.hostname, parts.port
    except ValueError:
        scheme, host, port = "", None, None
    here = host in LOOPBACK
    if not host or port == 0 or scheme not in (("http",) if here else ("http", "https")):
        raise SettingsError(
            name,
            value,
            "Use http://127.0.0.1:PORT, or https://HOST:PORT of a broker on another machine, which "
            "`claude-peers join` prints.",
        )
    if here:
        return f"http://127.0.0.1:{port or 7899}"
    return f"https://[{host}]:{port or 7899}" if ":" in host else f"https://{host}:{port or 7899}"
