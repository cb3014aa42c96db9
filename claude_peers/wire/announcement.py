"""The datagram by which a broker tells the local network that it is there, as agentmesh has it.

agentmesh 0.4 broker.ts, `AGENTMESH_BROKER`. Anybody in the network can send one, so what it says
is a rumour: it opens nothing, and a broker that was heard of has to be joined like any other.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

from claude_peers import __version__
from claude_peers.core.errors import BadRequestError
from claude_peers.core.limits import NAME
from claude_peers.core.text import one_line
from claude_peers.wire import codec

TYPE: Final = "AGENTMESH_BROKER"
LONGEST: Final = 2048
"""Bytes of one datagram."""
ADDRESSES: Final = 16
URL: Final = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class Announcement:
    """What a broker said about itself, fit to be shown; nothing of it has been proved.

    Attributes:
        source: the address the datagram came from.
        version: product and version.
        url: where it says that it is.
        fleet_id: the fleet it says it is of, "" for none.
        ips: the addresses it says it has.
    """

    source: str
    version: str
    url: str
    fleet_id: str
    ips: tuple[str, ...]


def encode(*, host: str, addresses: Iterable[str], fleet_id: str | None) -> bytes:
    """Return the datagram of a broker that listens at `addresses`, `HOST:PORT`.

    There is no WebSocket for agents on other machines, so none is told.
    """
    listed = list(addresses)[:ADDRESSES]
    port = listed[0].rpartition(":")[2]
    return codec.dumps(
        {
            "type": TYPE,
            "version": f"claude-peers/{__version__}",
            "broker_http": f"https://{host}:{port}",
            "broker_ws": None,
            "fleet_id": fleet_id,
            "ips": [each.rpartition(":")[0] for each in listed],
        }
    )


def decode(data: bytes, source: str) -> Announcement | None:
    """Return what a datagram says, or None if it is no announcement.

    Args:
        data: all of it.
        source: the address it came from.
    """
    if len(data) > LONGEST:
        return None
    try:
        told = codec.load_object(data)
    except BadRequestError:
        return None
    url = told.get("broker_http")
    if told.get("type") != TYPE or not isinstance(url, str):
        return None
    return Announcement(
        source=one_line(source, NAME),
        version=_word(told.get("version"), NAME),
        url=one_line(url, URL),
        fleet_id=_word(told.get("fleet_id"), NAME),
        ips=_words(told.get("ips")),
    )


def _word(value: Any, most: int) -> str:
    return one_line(value, most) if isinstance(value, str) else ""


def _words(values: Any) -> tuple[str, ...]:
    listed = values[:ADDRESSES] if isinstance(values, list) else []
    return tuple(word for value in listed if (word := _word(value, NAME)))
