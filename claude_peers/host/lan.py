"""Datagrams to and from the local network."""

import socket
import time
from collections.abc import Iterator

from claude_peers.core.errors import ClaudePeersError

EVERYBODY = "255.255.255.255"


class CannotListenError(ClaudePeersError):
    """Datagrams cannot be received there."""

    code = "cannot_listen"

    def __init__(self, place: str, why: str) -> None:
        super().__init__(
            f"Cannot listen at {place}: {why}",
            "Choose another address or port with CLAUDE_PEERS_DISCOVERY_ADDRESS.",
        )


def send(data: bytes, target: tuple[str, int]) -> None:
    """Send one datagram.

    Raises:
        OSError: there is no way to the target now.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        sender.sendto(data, target)


def receive(target: tuple[str, int], *, within: float, longest: int) -> Iterator[tuple[bytes, str]]:
    """Yield each datagram and where it came from, for so many seconds.

    Args:
        target: where they are sent to.
        within: seconds.
        longest: bytes; of a longer one, one byte more is yielded, so that it can be told.

    Raises:
        CannotListenError: somebody has the port for himself, or the address is another machine's.
    """
    host, port = target
    # A broadcast reaches only a socket that is bound to no address.
    place = "" if host == EVERYBODY else host
    end = time.monotonic() + within
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as receiver:
        receiver.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            receiver.bind((place, port))
        except OSError as error:
            raise CannotListenError(f"{host}:{port}", error.strerror or str(error)) from None
        while (left := end - time.monotonic()) > 0:
            receiver.settimeout(left)
            try:
                data, source = receiver.recvfrom(longest + 1)
            except TimeoutError:
                return
            yield data, source[0]
