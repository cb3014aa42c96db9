"""Use cases about peers: coming, going, being found, what others may know about them."""

import asyncio
import logging
from collections.abc import Callable, Coroutine, Iterable
from dataclasses import replace
from typing import Any

from claude_peers.broker import registration
from claude_peers.broker.context import Context
from claude_peers.broker.wills import Wills, will_of
from claude_peers.core import discovery, identity, liveness
from claude_peers.core.errors import (
    BadRequestError,
    NameTakenError,
    NotPossibleError,
    SecretRequiredError,
)
from claude_peers.core.limits import KEYS, NAME, SUMMARY
from claude_peers.core.models import Caller, Message, Peer, PeerId, Presence
from claude_peers.core.profile import WEBHOOK, Wanted, transport
from claude_peers.core.sharing import as_seen_from
from claude_peers.core.text import one_line
from claude_peers.wire.records import ListPeersRequest, RegisterRequest

log = logging.getLogger(__name__)

PROBED = 100
"""Peers without a live connection whose processes are looked at for each list."""
FORWARD = 24 * 3600.0
"""Seconds a peer answers to a name it had."""
MUTED = 256
"""Senders a peer may mute."""

Told = Callable[[Peer], Coroutine[Any, Any, None]]


class Peers:
    """Who is there.

    Args:
        context: what the broker works with.

    Attributes:
        gone: told about each peer that is not there any more.
        wills: what is published when one is lost.
        offer: told about mail that a peer may have from now on.
    """

    def __init__(self, context: Context) -> None:
        self.gone: Told
        self.wills: Wills
        self.offer: Callable[[Message], None]
        self._context = context
        self._roster = context.roster

    async def register(self, caller: Caller, request: RegisterRequest) -> registration.Registration:
        """Let a peer in, or in again."""
        context = self._context
        if request.lwt is not None and request.lwt.topic:
            will_of(PeerId(""), request.lwt)  # before anything is done for a request that is none
        holders = [p for p in self._unlinked() if identity.shares_key(request.keys, p)]
        if holders:  # one of them may have died unnoticed, and its mailbox be the newcomer's
            await self.sweep(holders)
        terms = registration.Terms(
            here=context.here,
            at=context.at(),
            required=context.options.require_token,
            linked=context.transport.reaches,
            share=context.options.share,
            fleet_id=context.options.fleet_id,
        )
        joined = registration.register(self._roster, caller, request, terms)
        if joined.secondary:
            self._roster.attach(registration.hash_token(joined.token), joined.peer.id)
            return joined
        if joined.replaced is not None:
            joined = self._forwarded(joined, joined.replaced)
        if joined.changed:
            await self._roster.put(joined.peer)
        if joined.replaced is not None:
            await self._left(joined.replaced)
        await self._inherit(joined.peer)
        await self.wills.came(joined.peer, request.lwt)
        context.heard_of(joined.peer.id)
        return joined

    async def unregister(self, caller: Caller, peer_id: str) -> None:
        """Let a peer go; its mail stays, and waits for a successor if one can be known."""
        peer = self._context.mine(caller, peer_id)
        if self._roster.release(caller.token_hash):
            return  # a second server of the same agent: the peer stays
        if peer is not None:
            await self._left(peer)

    async def heartbeat(self, caller: Caller, peer_id: str) -> None:
        """Take a sign of life; a peer that was only silent is there again."""
        self._context.heard_of(peer_id)
        if again := registration.come_back(self._roster, caller, peer_id):
            await self._roster.put(again)
            await self.wills.came(again, None)

    async def set_summary(self, caller: Caller, peer_id: str, summary: str) -> None:
        """Change what a peer says about itself."""
        if peer := self._context.mine(caller, peer_id):
            await self._roster.put(replace(peer, summary=summary[:SUMMARY]))

    async def rename(self, caller: Caller, peer_id: str, name: str) -> Peer:
        """Give a peer another name; it answers to the old one for a day.

        Raises:
            BadRequestError: that is no name.
            NameTakenError: somebody who is there, or may come back, has it, or it is an id.
        """
        peer = self._context.managed(caller, peer_id)
        if not identity.is_name(name):
            raise BadRequestError(
                f"{one_line(name, NAME)!r} is no name",
                "A name has up to 64 of a-z, 0-9, dot, dash and underscore, a letter or digit "
                "first.",
            )
        away = {each.name for each in self._roster if each.presence is Presence.AWAY}
        if name in (self._roster.names(without={peer.id}) | away) - {peer.id, peer.name}:
            raise NameTakenError(name)
        if name == peer.name:
            return peer
        now = self._context.clock.wall()
        kept = [each for each in peer.former if each[1] > now and each[0] not in (name, peer.name)]
        former = ((peer.name, now + FORWARD), *kept)
        renamed = replace(peer, name=name, former=former[:KEYS])
        await self._roster.put(renamed)
        await self._inherit(renamed)
        return renamed

    async def mute(self, caller: Caller, peer_id: str, sender: str, *, muted: bool) -> Peer:
        """Stop, or start again, to offer a sender's messages to a peer; return the sender.

        Raises:
            NotPossibleError: the sender is the peer itself.
        """
        context = self._context
        peer = context.managed(caller, peer_id)
        other = context.resolve(sender, caller)
        if other.id == peer.id:
            raise NotPossibleError(
                f"{peer.name} cannot mute itself", "Name the peer whose messages it should not get."
            )
        rest = [each for each in peer.muted if each != other.id]
        listed = [other.id, *rest] if muted else rest
        await self._roster.put(replace(peer, muted=tuple(listed[:MUTED])))
        if not muted:
            for message in await context.store.admit(peer.id, other.id, now=context.clock.wall()):
                self.offer(message)
        return other

    def set_route(self, caller: Caller, peer_id: str, route: str, activity: str) -> None:
        """Note how a peer is reached now, and whether its agent is idle; not worth an fsync."""
        if peer := self._context.mine(caller, peer_id):
            route, activity = one_line(route, NAME), one_line(activity, NAME)
            self._roster.note(replace(peer, route=route, activity=activity))

    async def add_keys(self, caller: Caller, peer_id: str, keys: tuple[str, ...]) -> None:
        """Record further identity keys of a peer: its agent's session got another id.

        Raises:
            SecretRequiredError: the peer did not prove the secret when it registered with keys.
        """
        peer = self._context.mine(caller, peer_id)
        if peer is None or not peer.keys:
            raise SecretRequiredError
        added = identity.more_keys(keys, peer.keys)
        if added != peer.keys:
            await self._roster.put(replace(peer, keys=added))

    async def list_peers(self, request: ListPeersRequest, machine: str = "") -> list[Peer]:
        """Return the peers of a scope as those on `machine` may see them.

        Those with a live connection have been seen just now.
        """
        if len(self._unlinked()) <= PROBED:
            await self.sweep()
        stored = self._roster.stored()
        found = discovery.visible(
            stored if request.gone else [p for p in stored if p.presence is Presence.PRESENT],
            request.scope,
            cwd=request.cwd,
            root=request.git_root,
            repo=request.repo,
            machine=machine,
        )
        at, reaches = self._context.at(), self._context.transport.reaches
        wanted = Wanted(
            agent_type=request.agent_type,
            capabilities=request.capabilities,
            fleet_id=request.fleet_id,
            device_id=request.device_id,
        )
        return [
            as_seen_from(replace(peer, last_seen=at) if reaches(peer.id) else peer, machine)
            for peer in found
            if peer.id != request.exclude_id
            and wanted.is_met(peer.client, peer.profile)
            and (self.online(peer) or not request.online_only)
        ]

    def online(self, peer: Peer) -> bool:
        """Whether a peer has a connection; that its mail is posted somewhere is none."""
        return transport(peer.route) != WEBHOOK and self._context.transport.reaches(peer.id)

    async def evict(self, machine: str) -> int:
        """Let go of the peers of a machine that may come no more; return how many there were."""
        found = [peer for peer in self._roster.present() if peer.machine == machine]
        for peer in found:
            await self.wills.left(peer.id)
        await self._let_go(found, "its machine was revoked")
        return len(found)

    def wake(self) -> None:
        """Give everybody time after a sleep, in which nobody could give a sign of life."""
        if self._context.lapses.slept():
            log.info("woke up: every peer gets a fresh period of grace")
            self._roster.give_time(now=self._context.clock.monotonic())

    async def sweep(self, peers: Iterable[Peer] | None = None) -> None:
        """Let go of peers (all, or some) that are gone; give back what they had in hand."""
        context = self._context
        self.wake()
        lost = liveness.gone(
            self._roster if peers is None else peers,
            boot=context.here.boot,
            alive=context.here.alive,
            linked=context.transport.reaches,
            silent_for=lambda each: self._roster.silent_for(each, now=context.clock.monotonic()),
            silence=context.options.silence,
        )
        await self._let_go(lost, "its reader is gone")

    async def _let_go(self, lost: list[Peer], why: str) -> None:
        context, at = self._context, self._context.at()
        for peer in lost:
            log.info("peer %s is gone", peer.id)
            context.give_back(peer.id, context.leases.drop_all(peer.id), why)
        gone = [registration.gone(peer, left=False, at=at) for peer in lost]
        await self._roster.put(*gone)
        for peer in gone:
            self._tell_gone(peer)
            context.in_background(self.wills.lost(peer))

    def _forwarded(
        self, joined: registration.Registration, earlier: Peer
    ) -> registration.Registration:
        """Let a peer answer to the id of the one whose place it takes, for a day."""
        until = self._context.clock.wall() + FORWARD
        former = ((str(earlier.id), until), *earlier.former, *joined.peer.former)
        return replace(joined, peer=replace(joined.peer, former=former[:KEYS]))

    async def _left(self, peer: Peer) -> None:
        # What it took last goes to a successor; without one, a poll under the old id settles it.
        context = self._context
        if peer.keys:
            context.give_back(peer.id, context.leases.drop_all(peer.id), "its reader has left")
        await self.wills.left(peer.id)
        gone = registration.gone(peer, left=True, at=context.at())
        await self._roster.put(gone)
        self._tell_gone(gone)

    def _tell_gone(self, peer: Peer) -> None:
        self._context.transport.dismiss(peer.id)
        # Whoever noticed it did not ask for this, and is not to suffer from its failure.
        self._context.in_background(self.gone(peer))

    async def _inherit(self, peer: Peer) -> None:
        """Take over mail that was sent by name to an earlier holder in the same directory."""
        store, now = self._context.store, self._context.clock.wall()
        earlier = [
            other.id
            for other in self._roster
            if (other.name, other.cwd, other.host, other.machine)
            == (peer.name, peer.cwd, peer.host, peer.machine)
            and other.id != peer.id
            and other.presence is not Presence.PRESENT
        ]
        moving = (store.readdress(each, peer.id, peer.name, now=now) for each in earlier)
        if sum(await asyncio.gather(*moving)):
            for message in await store.unread(peer.id):
                if message.inherited and message.to_name == peer.name:
                    self.offer(message)

    def _unlinked(self) -> list[Peer]:
        reaches = self._context.transport.reaches
        return [peer for peer in self._roster.present() if not reaches(peer.id)]
