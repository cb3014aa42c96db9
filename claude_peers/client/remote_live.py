"""A session's live connection to a broker on another machine.

Loaded only where one is used, for it loads OpenSSL.
"""

import asyncio
import ssl

from claude_peers.client.joined import Joined, Signer
from claude_peers.client.link import HANDSHAKE, LiveLink
from claude_peers.client.remote import not_tls, tls_of
from claude_peers.wire import frames
from claude_peers.wire.tls_stream import TlsStream


async def connect(joined: Joined) -> LiveLink:
    """Connect for a session and verify the broker.

    Raises:
        OSError: nobody answers.
        NoBrokerError: what listens is not the broker that this machine was invited to.
        NotOursError: it is, and does not let us in.
    """
    loop, address = asyncio.get_running_loop(), joined.address

    link = LiveLink()
    async with asyncio.timeout(HANDSHAKE):
        transport, outer = await loop.create_connection(
            lambda: TlsStream(link, tls_of(joined), client=True), address.host, address.port
        )
        try:
            await outer.established
            signed = Signer(joined, outer.tls.binding).sign("GET", frames.LIVE_PATH)
            await link.upgrade(str(address), joined.secret, signed)
        except ssl.SSLError as error:
            transport.abort()
            raise not_tls(joined, error) from error
        except BaseException:
            transport.abort()
            raise
    return link
