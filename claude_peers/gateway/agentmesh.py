"""What a WebSocket client of agentmesh 0.4 says, and is answered (`wire.agentmesh_frames`)."""

from typing import TYPE_CHECKING, Any, Final, Protocol

from claude_peers.broker.context import iso
from claude_peers.broker.registration import hash_token
from claude_peers.core import access
from claude_peers.core.errors import BadRequestError, ClaudePeersError
from claude_peers.core.models import Message, Peer, PeerId, Presence
from claude_peers.core.profile import AT_MOST_ONCE
from claude_peers.transports.leased import LeasedStream, attach
from claude_peers.wire import agentmesh_frames as frames
from claude_peers.wire.agentmesh import sign
from claude_peers.wire.codec import decode
from claude_peers.wire.wills import LastWill

if TYPE_CHECKING:
    from claude_peers.gateway.app import App, Caller
    from claude_peers.transports.live import LiveConnections

ROUTE: Final = "websocket"
NORMAL: Final = 1000
POLICY: Final = 1008
"""agentmesh closes with 1000 here, which its client takes for a goodbye: it never comes back."""
_OK: Final = 200


class Socket(Protocol):
    """The WebSocket, as the conversation needs it (see `gateway.websocket`)."""

    @property
    def clogged(self) -> bool:
        """Whether something still waits to be handed to the system, or it has ended."""
        ...

    @property
    def closing(self) -> bool:
        """Whether nobody is there any more."""
        ...

    def send(self, data: bytes) -> None:
        """Write one message."""
        ...

    def introduced(self) -> None:
        """Tell that it has said who it is."""
        ...

    def close(self, code: int, reason: str) -> None:
        """End it."""
        ...


class Conversation:
    """One client's conversation; also the sink of its messages (`transports.leased`)."""

    def __init__(
        self, app: "App", live: "LiveConnections", caller: "Caller", socket: Socket
    ) -> None:
        self._app = app
        self._broker = app.broker
        self._live = live
        self._caller = caller
        self._socket = socket
        self._known = False
        self._stream: LeasedStream | None = None

    async def take(self, batch: list[bytes]) -> None:
        """Serve a client's frames in their order; acknowledgements in a row are one."""
        read: list[int] = []
        for data in batch:
            try:
                frame = frames.parse(data)
            except BadRequestError as error:
                self._socket.send(frames.error(frames.PARSE_ERROR, error.fact))
                continue
            number = frames.acknowledged(frame)
            if frame.get("type") == "ACK":
                read += [] if number is None else [number]
                continue
            await self._acknowledge(read)
            await self._serve(frame)
            if self._socket.closing:
                return
        await self._acknowledge(read)

    def ended(self) -> None:
        """Let go of the connection, which has ended without a goodbye."""
        if (stream := self._let_go()) is not None:
            self._broker.stream_ended(stream.peer_id, missed=True)

    def drained(self) -> None:
        """Go on after everything was handed to the system."""
        if self._stream is not None:
            self._stream.drained()

    # A sink for messages

    def write_message(self, message: Message) -> None:
        """See `transports.leased.MessageSink`."""
        options = self._broker.options
        by = None
        if message.qos != AT_MOST_ONCE:
            by = iso(self._broker.clock.wall() + options.ack_within)
        secret = options.fleet_secret
        frame = frames.push(
            message,
            self._broker.roster.get(message.from_id),
            expires_at=iso(message.expires_at),
            ack_deadline=by,
            signature=sign(secret, message) if secret else None,
            deliveries=self._broker.store.deliveries,
        )
        self._socket.send(frame)

    @property
    def clogged(self) -> bool:
        """See `transports.leased.MessageSink`."""
        return self._socket.clogged

    def hang_up(self) -> None:
        """See `transports.leased.MessageSink`."""
        # The code is that of a goodbye, so that the two do not take the place from each other.
        self._socket.close(NORMAL, "a newer connection of this peer took its place")

    # Frames

    async def _serve(self, frame: dict[str, Any]) -> None:
        match frame.get("type"):
            case "CONNECT":
                await self._connect(frame)
            case "DISCONNECT":
                await self._disconnect()
            case "PING":
                if self._stream is not None:
                    await self._broker.peers.heartbeat(self._caller, self._stream.peer_id)
                self._socket.send(frames.PONG)
            case _:
                pass

    async def _acknowledge(self, read: list[int]) -> None:
        if read and self._stream is not None:
            await self._stream.hand.seen(read)
        read.clear()

    async def _connect(self, frame: dict[str, Any]) -> None:
        try:
            joined = await self._joined(frame)
        except ClaudePeersError as error:
            told = f"{error.fact}. {error.remedy}"
            self._socket.send(frames.error(frames.PARSE_ERROR, told))
            return
        if isinstance(joined, str):
            self._socket.send(frames.error(frames.UNAUTHORIZED, joined))
            self._socket.close(POLICY, "unauthorized")
            return
        peer_id, token = joined
        self._caller.token_hash = hash_token(token)
        self._caller.proved = False  # from here on it is an agent, which does not act for its user
        if not self._socket.closing:
            self._attach(peer_id, token)

    async def _joined(self, frame: dict[str, Any]) -> tuple[PeerId, str] | str:
        """Return who a client is and its token, or why it is nobody."""
        lwt = frame.get("lwt")
        if not isinstance(lwt, dict | None):
            raise BadRequestError("`lwt` must be an object", "Leave it, or give topic and message.")
        match frame:
            case {"agent_id": str(agent_id), "token": str(token)}:
                known = await self._returned(agent_id, token, lwt)
                return (known.id, token) if known else "Invalid token"
            case {"registration": dict(registration)}:
                return await self._registered(registration, lwt)
            case _:
                return "Provide agent_id+token or registration"

    async def _registered(
        self, registration: dict[str, Any], lwt: dict[str, Any] | None
    ) -> tuple[PeerId, str]:
        body = registration if lwt is None else registration | {"lwt": lwt}
        status, told, _ = await self._app.call(self._caller, "/register", body)
        if status != _OK:
            raise BadRequestError(told["error"], told.get("remedy", "Connect again."))
        return PeerId(told["id"]), told["token"]

    async def _returned(self, agent_id: str, token: str, lwt: dict[str, Any] | None) -> Peer | None:
        """Return the peer whose token a client shows; who has left registers anew."""
        broker, caller = self._broker, self._caller
        peer = broker.roster.get(agent_id)
        caller.token_hash = hash_token(token)
        if peer is None or not access.speaks_for(caller, peer):
            return None
        will = None if lwt is None else decode(LastWill, lwt)
        await broker.peers.heartbeat(caller, agent_id)
        peer = broker.roster.get(agent_id)
        if peer is None or peer.presence is not Presence.PRESENT:
            return None
        await broker.wills.came(peer, will)
        return peer

    def _attach(self, peer_id: PeerId, token: str) -> None:
        within = self._broker.options.ack_within
        hand = self._broker.streams.open(self._caller, peer_id, via=ROUTE, ack_within=within)
        if (earlier := self._let_go()) is not None and earlier.peer_id != peer_id:
            self._broker.stream_ended(earlier.peer_id, missed=True)
        if not self._known:
            self._known = True
            self._socket.introduced()
        self._socket.send(frames.connected(peer_id, token))
        self._broker.reached_by(peer_id, ROUTE)
        self._stream = attach(self._live, self, hand)

    async def _disconnect(self) -> None:
        if (stream := self._let_go()) is not None:
            self._broker.stream_ended(stream.peer_id, missed=False)
            await self._broker.peers.unregister(self._caller, stream.peer_id)
        self._socket.close(NORMAL, "clean disconnect")

    def _let_go(self) -> LeasedStream | None:
        """Give back what is in hand; return the stream if it was its peer's until now."""
        stream, self._stream = self._stream, None
        if stream is None:
            return None
        stream.end()
        return stream if self._live.detach(stream) else None
