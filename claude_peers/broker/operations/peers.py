"""Requests about peers: joining, leaving, being alive, being found."""

from typing import TYPE_CHECKING, Any

from claude_peers.broker.operations.registry import operation
from claude_peers.core.models import Caller
from claude_peers.wire.records import (
    ListPeersRequest,
    PeerRequest,
    RegisterRequest,
    SetSummaryRequest,
    peer_view,
)

if TYPE_CHECKING:
    from claude_peers.broker.broker import Broker

OK = {"ok": True}


@operation("/register", RegisterRequest)
async def register(broker: "Broker", caller: Caller, request: RegisterRequest) -> Any:
    """Join, or come back with a token, and learn one's id."""
    joined = await broker.register(caller, request)
    return {"id": joined.peer.id, "token": joined.token, "name": joined.peer.name}


@operation("/heartbeat", PeerRequest)
async def heartbeat(broker: "Broker", caller: Caller, request: PeerRequest) -> Any:
    """Give a sign of life; needed from peers whose process the broker cannot see."""
    await broker.heartbeat(caller, request.id)
    return OK


@operation("/set-summary", SetSummaryRequest)
async def set_summary(broker: "Broker", caller: Caller, request: SetSummaryRequest) -> Any:
    """Change what a peer says it is working on."""
    await broker.set_summary(caller, request.id, request.summary)
    return OK


@operation("/list-peers", ListPeersRequest)
async def list_peers(broker: "Broker", caller: Caller, request: ListPeersRequest) -> Any:
    """List the peers of the machine, a directory or a repository."""
    del caller
    return [peer_view(peer) for peer in await broker.list_peers(request)]


@operation("/unregister", PeerRequest)
async def unregister(broker: "Broker", caller: Caller, request: PeerRequest) -> Any:
    """Leave; unread mail is kept."""
    await broker.unregister(caller, request.id)
    return OK
