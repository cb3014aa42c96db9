"""One post over one connection, which is made to an address that was judged just before."""

import asyncio
import contextlib
import logging
import socket
from collections.abc import Callable
from ipaddress import ip_address
from typing import TYPE_CHECKING, Final

import h11

from claude_peers.broker.ports import Clock
from claude_peers.broker.webhooks import Errand
from claude_peers.core.webhooks import (
    WITHIN,
    Outcome,
    Rules,
    Target,
    WebhookRefusedError,
    check_address,
    check_target,
    outcome,
    read_target,
)
from claude_peers.transports.webhook_pipes import Pipe, TlsPipe, trusted
from claude_peers.transports.webhooks import Result
from claude_peers.wire.webhook_posts import Post, make_post, retry_after

if TYPE_CHECKING:
    from ssl import SSLContext

log = logging.getLogger(__name__)

MOST: Final = 64 * 1024
"""Bytes of an answer that are read, and not looked at."""
READ_ON: Final = 1.0
"""Seconds for that."""
_ODD = (OSError, h11.ProtocolError, EOFError)


class Sender:
    """Posts messages.

    Args:
        clock: what time it is.
        rules: where may be posted to.
        listener_uid: tells whose listener is on a port of this machine, None if that is unknown.
        own_uid: this user.
        within: seconds for one post.
    """

    def __init__(
        self,
        clock: Clock,
        rules: Callable[[], Rules],
        *,
        listener_uid: Callable[[int], int | None],
        own_uid: int,
        within: float = WITHIN,
    ) -> None:
        self._clock = clock
        self._rules = rules
        self._listener_uid = listener_uid
        self._own_uid = own_uid
        self._within = within
        self._context: SSLContext | None = None

    async def __call__(self, errand: Errand) -> Result:
        """Post one message; never raises."""
        try:
            return await self._post(errand)
        except WebhookRefusedError as error:
            # What is told is shown to others as well, and must not name the address.
            log.info("message %d is not posted: %s", errand.message.id, error.fact)
            return Result(Outcome.RETRY, "its address is refused")
        except TimeoutError:
            return Result(Outcome.RETRY, f"no answer within {self._within:g} s")
        except _ODD as error:
            return Result(Outcome.RETRY, type(error).__name__)

    async def _post(self, errand: Errand) -> Result:
        target, now = read_target(errand.webhook.url), self._clock.wall()
        post = make_post(
            errand.webhook,
            errand.message,
            errand.sender,
            signature=errand.signature,
            deliveries=errand.deliveries,
            now=now,
        )
        connection, pipe = h11.Connection(h11.CLIENT), None
        try:
            async with asyncio.timeout(self._within):
                pipe = await self._connect(target, await self._address(target))
                await pipe.open()
                answer = await _exchange(connection, post, pipe)
            # From here on it is known what the answer is.
            with contextlib.suppress(TimeoutError, *_ODD):
                async with asyncio.timeout(READ_ON):
                    await _drain(connection, pipe)
        finally:
            if pipe is not None:
                pipe.abort()
        asked = dict(answer.headers).get(b"retry-after", b"").decode("latin-1")
        told = f"HTTP {answer.status_code}"
        return Result(outcome(answer.status_code), told, retry_after(asked, now=now))

    async def _address(self, target: Target) -> str:
        """Return an address to connect to, of which all have been judged.

        Raises:
            OSError: there is none.
            WebhookRefusedError: one of them is none to post to.
        """
        rules = self._rules()
        check_target(target, rules)
        loop = asyncio.get_running_loop()
        found = await loop.getaddrinfo(target.host, target.port, type=socket.SOCK_STREAM)
        addresses = [str(each[4][0]).partition("%")[0] for each in found]
        for address in addresses:
            check_address(target, ip_address(address), rules)
        loopback = [each for each in addresses if ip_address(each).is_loopback]
        if loopback and not rules.allows(target):
            uid = self._listener_uid(target.port)
            if uid not in (None, self._own_uid):
                raise WebhookRefusedError(f"Port {target.port} is another user's (uid {uid})")
        # IPv4 first: `localhost` is often both, and most listen on 127.0.0.1 only.
        return min(addresses, key=lambda each: ":" in each)

    async def _connect(self, target: Target, address: str) -> Pipe:
        ends = await asyncio.open_connection(address, target.port, limit=MOST)
        if target.scheme == "http":
            return Pipe(*ends)
        if self._context is None:
            self._context = trusted()
        return TlsPipe(*ends, host=target.host, context=self._context)


async def _exchange(connection: h11.Connection, post: Post, pipe: Pipe) -> h11.Response:
    """Send a post and return its answer's head; redirects are answers, interim ones are not."""
    request = h11.Request(method="POST", target=post.path, headers=list(post.headers))
    events = (request, h11.Data(data=post.body), h11.EndOfMessage())
    pipe.write(b"".join(connection.send(event) or b"" for event in events))
    while True:
        event = connection.next_event()
        if isinstance(event, h11.Response):
            return event
        if event is h11.NEED_DATA:
            data = await pipe.read()
            if not data:
                raise EOFError
            connection.receive_data(data)


async def _drain(connection: h11.Connection, pipe: Pipe) -> None:
    """Read an answer's body, so that its sender is not cut off; what it says does not count."""
    left = MOST
    while left > 0:
        event = connection.next_event()
        if event is h11.NEED_DATA:
            data = await pipe.read()
            left -= len(data)
            connection.receive_data(data)
        elif not isinstance(event, h11.Data):
            return
