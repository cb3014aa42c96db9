"""Use cases about messages for many: published to a topic, or sent to a scope.

A broadcast becomes one ordinary message for each recipient, all of them in one transaction, so that
receipts, order, limits and the ledger hold as for any message.
"""

import logging
from collections.abc import Iterable
from dataclasses import dataclass, replace

from claude_peers.broker.context import Context
from claude_peers.broker.mail import Mail
from claude_peers.broker.topics import Topics
from claude_peers.core import access
from claude_peers.core.audience import UNCONFIRMED, Place, of_scope, of_workspace
from claude_peers.core.delivery import TOPIC_TTL, lifetime
from claude_peers.core.errors import (
    ClaudePeersError,
    LoopGuardError,
    NotPossibleError,
    RateLimitedError,
    TooManyTopicsError,
)
from claude_peers.core.limits import TOPIC, check_text, cost
from claude_peers.core.models import Caller, Draft, Message, Peer, Receipt, Retained, Trust
from claude_peers.core.profile import granted
from claude_peers.core.text import one_line
from claude_peers.core.topics import check_topic
from claude_peers.core.wills import Will
from claude_peers.wire.topics import BroadcastRequest

log = logging.getLogger(__name__)

Refused = list[tuple[Peer, ClaudePeersError]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """What became of a broadcast.

    Attributes:
        copies: each recipient's message, as it was stored.
        refused: who did not get one, and why.
        unconfirmed: whom it would reach, if there are more of them than the sender knows of;
            then nothing was sent.
        duplicate: all of it was stored before, under the same key.
    """

    copies: list[tuple[Peer, Message]]
    refused: Refused
    unconfirmed: list[Peer]
    duplicate: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class _Author:
    from_id: str
    verified: bool
    source: str
    place: Place


class Broadcasts:
    """Messages for many.

    Args:
        context: what the broker works with.
        mail: whose limits hold.
        topics: who has subscribed.
    """

    def __init__(self, context: Context, mail: Mail, topics: Topics) -> None:
        self._context = context
        self._mail = mail
        self._topics = topics

    async def send(self, caller: Caller, request: BroadcastRequest) -> Published:
        """Store a message for everybody whom the request means, but for its sender.

        It counts as one message of its sender, and as one more for every ten recipients.

        Raises:
            NotPossibleError: it does not say for whom, or not so that it can be understood.
            RateLimitedError: the sender sends too much.
            RetainedTooLongError: it cannot be kept.
            TooManyTopicsError: too many topics have a last value.
        """
        try:
            published = await self._send(caller, request)
        except ClaudePeersError as error:
            self._mail.refused[error.code] += 1
            raise
        self._mail.refused.update(error.code for _, error in published.refused)
        return published

    async def _send(self, caller: Caller, request: BroadcastRequest) -> Published:
        author = self._author(caller, request)
        check_text(request.text)
        self._topics.last_values.check(request)
        reached = self._reached(request, author)
        ours = (request.scope or "").startswith("@")
        if ours and len(reached) > max(UNCONFIRMED, request.confirm):
            return Published(copies=[], refused=[], unconfirmed=reached)
        waited = await self._admit(self._drafts(request, author, reached), author.source)
        keep, key, kept_before = self._kept(request, author), _key_of_value(request), False
        if keep is not None and key is not None:
            waited, now = True, self._context.clock.wall()
            kept_before = await self._context.store.kept(keep, key, now=now)
        if waited:
            reached = self._reached(request, author)  # somebody may have come meanwhile
        if kept_before:
            keep = None  # a newer value may have come since
        refused: Refused = []
        peers = [peer for peer in reached if self._may_turn(author, peer, refused)]
        drafts = self._drafts(request, author, peers)
        copies, duplicate = [], True
        results = await self._topics.publish(drafts, keep=keep, key=key)
        for peer, result in zip(peers, results, strict=True):
            if isinstance(result, Receipt):
                copies.append((peer, result.message))
                duplicate = duplicate and result.duplicate
            else:
                refused.append((peer, result))
        duplicate = duplicate and (kept_before or bool(copies))
        return Published(copies=copies, refused=refused, unconfirmed=[], duplicate=duplicate)

    async def publish_will(self, peer: Peer, will: Will) -> None:
        """Publish what a peer that is lost left behind, as from itself.

        It counts as a broadcast does, against what all wills of the peer's machine may be: peers
        that come only to be lost would have an allowance each. A value that cannot be kept is
        published all the same: nobody is there to be told.

        Raises:
            RateLimitedError: it has to wait.
        """
        request = BroadcastRequest(
            text=will.text, from_id=peer.id, topic=will.topic, retain=will.retain, qos=will.qos
        )
        try:
            self._topics.last_values.check(request)
        except TooManyTopicsError as error:
            log.warning("the last will of %s is not kept: %s", peer.id, error)
            request = replace(request, retain=False)
        verified = peer.trust is not Trust.OPEN
        author = _Author(from_id=peer.id, verified=verified, source=peer.id, place=Place())
        drafts = self._drafts(request, author, self._reached(request, author))
        self._mail.rates.spend(
            f"wills of {peer.machine or self._context.here.host}",
            now=self._context.clock.monotonic(),
            count=cost(len(drafts), self._context.options.limits),
        )
        await self._topics.publish(drafts, keep=self._kept(request, author), will=will)

    def _author(self, caller: Caller, request: BroadcastRequest) -> _Author:
        context = self._context
        sender = context.mine(caller, request.from_id)
        where = request if sender is None else sender
        return _Author(
            from_id=access.signed_as(caller, request.from_id) if sender is None else sender.id,
            verified=sender is not None and context.speaks_for(caller, sender),
            source=caller.source if sender is None else sender.id,
            place=Place(
                cwd=where.cwd, root=where.git_root, repo=where.repo, machine=caller.machine
            ),
        )

    def _reached(self, request: BroadcastRequest, author: _Author) -> list[Peer]:
        """Return whom a request means, its sender left out."""
        present = self._context.roster.present()
        match (request.topic, request.scope, request.workspace):
            case (str(topic), None, None):
                check_topic(topic)
                found = self._topics.subscribers(topic)
            case (None, str(scope), None):
                found = of_scope(scope, present, author.place)
            case (None, None, str(workspace)):
                found = of_workspace(workspace, present, author.place)
            case whom:
                raise NotPossibleError(
                    "It is not clear for whom this is" if any(whom) else "`topic` is missing",
                    "Give one of topic, scope (@machine, @repo, @dir, @name) and workspace.",
                )
        return [peer for peer in found if peer.id != author.from_id]

    async def _admit(self, drafts: list[Draft], source: str) -> bool:
        """Count a broadcast against its sender's allowance; True if others had time to come.

        One that is sent once more, because its answer was lost, was admitted the first time.
        """
        context = self._context
        count = cost(len(drafts), context.options.limits)
        try:
            self._mail.rates.spend(source, now=context.clock.monotonic(), count=count)
        except RateLimitedError:
            first = drafts[0] if drafts and drafts[0].dedupe_key else None
            if not first or not await context.store.accepted(first, now=context.clock.wall()):
                raise
            return True
        return False

    def _may_turn(self, author: _Author, peer: Peer, refused: Refused) -> bool:
        """Whether the sender and a recipient do not answer each other without end."""
        now = self._context.clock.monotonic()
        try:
            self._mail.exchanges.take_turn(author.from_id, peer.id, now=now)
        except LoopGuardError as error:
            refused.append((peer, error))
            return False
        return True

    def _drafts(
        self, request: BroadcastRequest, author: _Author, peers: Iterable[Peer]
    ) -> list[Draft]:
        context, key = self._context, request.dedupe_key
        wall, at, label = context.clock.wall(), context.at(), _label(request)
        return [
            Draft(
                from_id=author.from_id,
                to_id=peer.id,
                text=request.text,
                sent_at=at,
                expires_at=wall + lifetime(peer.profile.ttl(request.ttl_ms), TOPIC_TTL),
                verified=author.verified,
                dedupe_key=key and f"{key} to {peer.id} of {label}",
                held=author.from_id in peer.muted,
                topic=label,
                qos=granted(request.qos, peer.profile.default_qos),
            )
            for peer in peers
        ]

    def _kept(self, request: BroadcastRequest, author: _Author) -> Retained | None:
        if not request.retain or request.topic is None:
            return None
        lives = lifetime(request.ttl_ms / 1000.0) if request.ttl_ms else None
        return Retained(
            topic=request.topic,
            from_id=author.from_id,
            text=request.text,
            sent_at=self._context.at(),
            verified=author.verified,
            expires_at=lives and self._context.clock.wall() + lives,
            qos=granted(request.qos),
        )


def _key_of_value(request: BroadcastRequest) -> str | None:
    """Return under what key a last value is known: there may be nobody who has a copy."""
    return request.dedupe_key and f"{request.dedupe_key} kept in {request.topic}"


def _label(request: BroadcastRequest) -> str:
    """Return what recipients see it was published to; only scopes begin with `@`."""
    if request.topic is not None:
        return request.topic
    return one_line("@" + (request.scope or request.workspace or "").removeprefix("@"), TOPIC)
