"""Requests that only agentmesh has, and what its clients are shown of peers and messages."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from claude_peers.broker.context import iso
from claude_peers.broker.operations.registry import operation
from claude_peers.core.errors import BadRequestError, NoFleetSecretError
from claude_peers.core.models import Caller, Message, Peer
from claude_peers.core.profile import AT_MOST_ONCE
from claude_peers.wire import agentmesh
from claude_peers.wire.agentmesh import AnyRequest, VerifyRequest
from claude_peers.wire.records import kept_view, message_view

if TYPE_CHECKING:
    from claude_peers.broker.broker import Broker
    from claude_peers.wire import agentmesh_answers

OBSERVED = 300.0
"""Seconds back to which an observer sees what was sent (claude-peers-mcp PR 61)."""


@operation("/verify-signature", VerifyRequest)
async def verify_signature(
    broker: "Broker", caller: Caller, request: VerifyRequest
) -> "agentmesh_answers.Verified":
    """Tell whether a message's signature was made with the fleet's secret."""
    del caller
    if not broker.options.fleet_secret:
        raise NoFleetSecretError
    if request.message is None:
        raise BadRequestError("`message` is missing")
    valid = agentmesh.verify(broker.options.fleet_secret, request.message, request.signature)
    return {"ok": valid, "valid": valid}


@operation("/federation/status", AnyRequest)
async def federation_status(
    broker: "Broker", caller: Caller, request: AnyRequest
) -> "agentmesh_answers.Federation":
    """Tell which brokers this one is federated with: none, as machines join instead."""
    del caller, request
    return {"broker_id": broker.options.broker_id, "peers": [], "server_peers": []}


def speaks(broker: "Broker", caller: Caller, peer_id: str) -> bool:
    """Whether what a peer's mailbox holds is read as agentmesh's clients read it."""
    peer = broker.roster.get(peer_id)
    return peer is not None and peer.profile.agentmesh and not caller.knows_secret


def peer_views(broker: "Broker", peers: Iterable[Peer]) -> list[Any]:
    """Return peers as `/list-peers` shows them."""
    return [
        agentmesh.listed(
            peer,
            online=broker.peers.online(peer),
            lwt_topic=broker.wills.topic(peer.id),
        )
        for peer in peers
    ]


def message_views(
    broker: "Broker",
    messages: Iterable[Message],
    *,
    kept: bool,
    rows: bool = False,
    deadline: str | None = None,
) -> list[Any]:
    """Return messages as they are handed out.

    Args:
        broker: who hands them out.
        messages: which.
        kept: for who keeps them, with the sender's name and the time they are dead after.
        rows: as agentmesh's pollers expect them.
        deadline: until when they are to be acknowledged.
    """
    secret = broker.options.fleet_secret
    views = []
    for each in messages:
        # Upstream's pollers take each message as it is, and look its sender up themselves.
        view = kept_view(each, broker.roster.get(each.from_id)) if kept else message_view(each)
        signature = agentmesh.sign(secret, each) if secret else None
        if rows:
            by = None if each.qos == AT_MOST_ONCE else deadline
            view |= agentmesh.row(
                each,
                expires_at=iso(each.expires_at),
                ack_deadline=by,
                signature=signature,
                deliveries=broker.store.deliveries,
            )
        elif signature:
            view["signature"] = signature
        views.append(view)
    return views


async def observed(broker: "Broker", *, limit: int) -> list[Message]:
    """Return what was sent to anybody in the last minutes, oldest first."""
    since = iso(broker.clock.wall() - OBSERVED)
    found = await broker.store.history(limit=limit, newest=True)
    return [each for each in found if each.sent_at >= since]
