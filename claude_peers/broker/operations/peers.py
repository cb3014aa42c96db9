"""Requests about peers: joining, leaving, being alive, being found."""

from typing import TYPE_CHECKING

from claude_peers.broker.operations.agentmesh import peer_views
from claude_peers.broker.operations.registry import operation
from claude_peers.core.models import Caller
from claude_peers.wire.records import (
    KeysRequest,
    ListPeersRequest,
    MuteRequest,
    PeerRequest,
    RegisterRequest,
    RenameRequest,
    RouteRequest,
    SetSummaryRequest,
)

if TYPE_CHECKING:
    from claude_peers.broker.broker import Broker
    from claude_peers.wire import agentmesh_answers, answers

OK: "answers.Done" = {"ok": True}


@operation("/register", RegisterRequest)
async def register(broker: "Broker", caller: Caller, request: RegisterRequest) -> "answers.Joined":
    """Join, or come back with a token, and learn one's id."""
    broker.webhooks.check(caller, request.transport)
    joined = await broker.peers.register(caller, request)
    secret = await broker.webhooks.came(joined, request.transport)
    answer: answers.Joined = {
        "id": joined.peer.id,
        "token": joined.token,
        "name": joined.peer.name,
    }
    if joined.secondary:
        answer["secondary"] = True
    if secret is not None:
        answer["webhook_secret"] = secret
    return answer


@operation("/heartbeat", PeerRequest)
async def heartbeat(broker: "Broker", caller: Caller, request: PeerRequest) -> "answers.Done":
    """Give a sign of life; needed from peers whose process the broker cannot see."""
    await broker.peers.heartbeat(caller, request.id)
    return OK


@operation("/set-summary", SetSummaryRequest)
async def set_summary(
    broker: "Broker", caller: Caller, request: SetSummaryRequest
) -> "answers.Done":
    """Change what a peer says it is working on."""
    await broker.peers.set_summary(caller, request.id, request.summary)
    return OK


@operation("/list-peers", ListPeersRequest)
async def list_peers(
    broker: "Broker", caller: Caller, request: ListPeersRequest
) -> "list[agentmesh_answers.ListedPeer]":
    """List the peers of the machine, a directory or a repository."""
    found = await broker.peers.list_peers(request, caller.machine)
    return peer_views(broker, found)


@operation("/unregister", PeerRequest)
async def unregister(broker: "Broker", caller: Caller, request: PeerRequest) -> "answers.Done":
    """Leave; unread mail is kept."""
    await broker.peers.unregister(caller, request.id)
    return OK


@operation("/rename", RenameRequest)
async def rename(broker: "Broker", caller: Caller, request: RenameRequest) -> "answers.Named":
    """Change a peer's name; it answers to the old one for a day."""
    peer = await broker.peers.rename(caller, request.id, request.name)
    return {"ok": True, "id": peer.id, "name": peer.name}


@operation("/mute", MuteRequest)
async def mute(broker: "Broker", caller: Caller, request: MuteRequest) -> "answers.Muted":
    """Hold a sender's messages back, or offer them again."""
    other = await broker.peers.mute(caller, request.id, request.peer_id, muted=request.muted)
    return {"ok": True, "peer_id": other.id, "name": other.name, "muted": request.muted}


@operation("/set-route", RouteRequest)
async def set_route(broker: "Broker", caller: Caller, request: RouteRequest) -> "answers.Done":
    """Tell how one is reached now, and whether one's agent is idle."""
    broker.peers.set_route(caller, request.id, request.route, request.activity)
    return OK


@operation("/add-keys", KeysRequest)
async def add_keys(broker: "Broker", caller: Caller, request: KeysRequest) -> "answers.Done":
    """Record further identity keys of one's own peer."""
    await broker.peers.add_keys(caller, request.id, request.keys)
    return OK
