"""Requests about other machines: who may come, who has, who may no more."""

from typing import TYPE_CHECKING, Any

from claude_peers.broker.context import iso
from claude_peers.broker.operations.registry import operation
from claude_peers.core.models import Caller
from claude_peers.wire.machines import (
    InviteRequest,
    JoinRequest,
    MachineRequest,
    machine_view,
)

if TYPE_CHECKING:
    from claude_peers.broker.broker import Broker
    from claude_peers.wire import user_answers


@operation("/admin/invite", InviteRequest, user=True)
async def invite(
    broker: "Broker", caller: Caller, request: InviteRequest
) -> "user_answers.Invited":
    """Let another machine join, once; needs proof of the user's secret."""
    del caller
    ttl = request.ttl_ms and request.ttl_ms / 1000.0
    machine, invitation = await broker.machines.invite(
        request.name, ttl=ttl, addresses=request.addresses
    )
    return {
        "ok": True,
        "name": machine.name,
        "invitation": str(invitation),
        "addresses": [str(each) for each in invitation.addresses],
        "expires_at": iso(machine.expires_at),
    }


@operation("/join", JoinRequest)
async def join(
    broker: "Broker", caller: Caller, request: JoinRequest
) -> "user_answers.MachineName":
    """Use an invite: from now on the machine's token counts."""
    del caller  # the code speaks for itself
    machine = await broker.machines.join(request.code, request.token_hash)
    return {"ok": True, "name": machine.name}


@operation("/admin/revoke", MachineRequest, user=True)
async def revoke(
    broker: "Broker", caller: Caller, request: MachineRequest
) -> "user_answers.Revoked":
    """Let a machine come no more and end its connections; needs proof of the user's secret."""
    del caller
    machine = await broker.machines.revoke(request.name)
    gone = await broker.peers.evict(machine.name)
    return {"ok": True, "name": machine.name, "peers": gone}


@operation("/admin/machines", MachineRequest, user=True)
async def machines(
    broker: "Broker", caller: Caller, request: MachineRequest
) -> "user_answers.Machines":
    """List the machines that were invited; needs proof of the user's secret."""
    del caller, request
    await broker.machines.opened()
    present = [peer.machine for peer in broker.roster.present()]
    doors, now = broker.machines.doors(), broker.machines.now()
    views: list[Any] = [
        machine_view(
            each,
            expired=each.has_ended(now),
            expires_at=None if each.ends_at is None else iso(each.ends_at),
            peers=present.count(each.name),
        )
        for each in broker.machines
    ]
    why = doors.problem
    return {
        "machines": views,
        "listening": list(doors.addresses),
        "problem": {"error": why.fact, "remedy": why.remedy} if why else None,
    }
