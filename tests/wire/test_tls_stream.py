"""A protocol inside TLS, over real sockets: it sees a transport like any other."""

import asyncio
import contextlib

import anyio
import pytest
from support.tls import shown

from claude_peers.wire.tls import PinChangedError, Tls, client_context, server_context
from claude_peers.wire.tls_stream import TlsStream

pytestmark = pytest.mark.anyio
BOUND = 10


class Heard(asyncio.Protocol):
    """Takes down what happens to it."""

    def __init__(self, echo=False):
        self.echo = echo
        self.said = b""
        self.paused = []
        self.lost = asyncio.get_running_loop().create_future()
        self.arrived = asyncio.Event()

    def connection_made(self, transport):
        self.transport = transport

    def data_received(self, data):
        self.said += data
        self.arrived.set()
        if self.echo:
            self.transport.write(data)

    def pause_writing(self):
        self.paused.append(True)

    def resume_writing(self):
        self.paused.append(False)

    def connection_lost(self, exc):
        self.lost.set_result(exc)

    async def until(self, text):
        with anyio.fail_after(BOUND):
            while text not in self.said:
                self.arrived.clear()
                await self.arrived.wait()


@contextlib.asynccontextmanager
async def connected(*, pin=None, echo=True):
    """Yield the client's stream, its protocol, and the server's."""
    loop, served = asyncio.get_running_loop(), []

    def serve():
        served.append(Heard(echo))
        return TlsStream(served[-1], Tls(server_context(shown().path)))

    server = await loop.create_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    tls = Tls(client_context(), where="there", pin=shown().pin if pin is None else pin)
    raw, stream = await loop.create_connection(
        lambda: TlsStream(Heard(), tls, client=True), "127.0.0.1", port
    )
    try:
        yield stream, stream.inner, served
    finally:
        raw.abort()
        server.close()
        for each in served:
            with anyio.fail_after(BOUND):
                await each.lost


async def test_what_is_written_arrives_and_the_end_too():
    async with connected() as (stream, client, served):
        await stream.established
        client.transport.write(b"hello")
        await client.until(b"hello")
        client.transport.close()
        with anyio.fail_after(BOUND):
            assert await served[0].lost is None
        assert served[0].said == b"hello"
        assert client.transport.is_closing()
        client.transport.write(b"too late")
        client.transport.close()


async def test_another_certificate_breaks_the_connection_before_a_byte():
    async with connected(pin=bytes(32)) as (stream, client, served):
        with anyio.fail_after(BOUND), pytest.raises(PinChangedError):
            await stream.established
        with anyio.fail_after(BOUND):
            await client.lost
            await served[0].lost
        assert served[0].said == b""


async def test_a_connection_that_breaks_first_is_told_to_who_waits():
    async with connected() as (stream, client, _):
        client.transport.abort()
        with anyio.fail_after(BOUND), pytest.raises(ConnectionResetError):
            await stream.established


async def test_the_transport_is_the_sockets_own_in_all_but_what_passes():
    async with connected() as (stream, client, served):
        await stream.established
        transport = client.transport
        assert transport.get_extra_info("tls") is stream.tls
        assert transport.get_extra_info("peername")[0] == "127.0.0.1"
        assert transport.get_extra_info("nothing", 7) == 7
        assert transport.can_write_eof()
        assert transport.get_protocol() is client
        transport.pause_reading()
        assert not transport.is_reading()
        transport.resume_reading()
        assert transport.is_reading()
        other = Heard()
        other.transport = transport
        transport.set_protocol(other)
        transport.write(b"for the other")
        await other.until(b"for the other")
        assert client.said == b""
        transport.set_protocol(client)
        transport.write_eof()
        with anyio.fail_after(BOUND):
            await served[0].lost


async def test_a_slow_reader_is_noticed_by_who_writes():
    async with connected(echo=False) as (stream, client, served):
        await stream.established
        client.transport.write(b"!")
        await served[0].until(b"!")
        far = served[0].transport
        client.transport.set_write_buffer_limits(high=0)
        far.pause_reading()
        while not client.paused:
            client.transport.write(bytes(1 << 20))
        assert client.transport.get_write_buffer_size() > 0
        far.resume_reading()
        with anyio.fail_after(BOUND):
            while client.paused[-1]:
                served[0].arrived.clear()
                await served[0].arrived.wait()
        assert client.transport.get_write_buffer_size() == 0
