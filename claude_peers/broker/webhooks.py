"""Use cases about outgoing webhooks: who has one, and what came of a post.

Each message is leased for its post, alone, so that every post is counted as a hand-out: who did
not take it in `Store.deliveries` posts has a dead letter, as everybody. Success is the evidence
that it was taken. The next broker goes on where this one ended: what was leased is queued again,
and is posted under the same id, marked as redelivered. What its sender wants at most once is posted
once: a post that failed, or that nobody knows about any more, makes a dead letter of it.
"""

import secrets
from collections.abc import Callable
from dataclasses import dataclass, replace

from claude_peers.broker.context import Context
from claude_peers.broker.ports import Claim
from claude_peers.broker.registration import Registration
from claude_peers.core.delivery import Event, posted_once
from claude_peers.core.errors import ClaudePeersError, NotPossibleError
from claude_peers.core.limits import NAME
from claude_peers.core.models import Caller, Message, Peer, PeerId, Presence
from claude_peers.core.profile import AT_MOST_ONCE
from claude_peers.core.text import one_line
from claude_peers.core.webhooks import (
    TOKEN,
    WEBHOOKS,
    Format,
    Outcome,
    Rules,
    Webhook,
    check_target,
    read_target,
)
from claude_peers.wire import agentmesh
from claude_peers.wire.webhook_posts import SECRET_BYTES, make_secret
from claude_peers.wire.webhooks import TransportRequest

ROUTE = "webhook"
"""The route of a peer whose mail is posted, as the roster shows it."""


@dataclass(frozen=True, slots=True)
class Errand:
    """One message on its way.

    Attributes:
        signature: the message's, made with the fleet's secret; None if there is none.
        deliveries: how often it is handed out, successfully or not, before it is dead.
        failures: how often it was handed out in vain before.
    """

    webhook: Webhook
    message: Message
    sender: Peer | None
    signature: str | None
    deliveries: int

    @property
    def failures(self) -> int:
        """How often it was handed out in vain before."""
        return self.message.deliveries


class Webhooks:
    """Every peer's webhook.

    Args:
        context: what the broker works with.

    Attributes:
        rules: where may be posted to.
        changed: called with each peer whose webhook is new or gone.
    """

    def __init__(self, context: Context) -> None:
        self.rules = Rules()
        self.changed: Callable[[PeerId], None] = lambda _peer_id: None
        self._context = context
        self._webhooks: dict[PeerId, Webhook] = {}

    async def load(self) -> None:
        """Read all webhooks."""
        self._webhooks = {each.peer_id: each for each in await self._context.store.webhooks()}
        for peer_id in self._webhooks:
            self._show(peer_id, "")

    def all(self) -> list[Webhook]:
        """Return every webhook."""
        return list(self._webhooks.values())

    def get(self, peer_id: str) -> Webhook | None:
        """Return a peer's webhook, unless it is out of use."""
        webhook = self._webhooks.get(PeerId(peer_id))
        return webhook if webhook is not None and not webhook.problem else None

    def reaches(self, peer_id: PeerId) -> bool:
        """Whether a webhook is all there is of a peer: no process shows whether it is there."""
        peer = self._context.roster.get(peer_id)
        return self.get(peer_id) is not None and peer is not None and peer.process is None

    # Setting

    def check(self, caller: Caller, request: TransportRequest | None) -> None:
        """Refuse a registration whose webhook is not possible, before anything is stored.

        Raises:
            NotPossibleError: format or token are none.
            NotPossibleError: there are too many webhooks.
            WebhookRefusedError: the broker does not post there.
        """
        if request is not None and _url(request):
            self._read(_url(request), request.format, request.token, machine=caller.machine)

    async def came(self, joined: Registration, request: TransportRequest | None) -> str | None:
        """Take the webhook that a peer came with; return its secret if that is new."""
        peer = joined.peer
        if request is None or joined.secondary:
            self._show(peer.id, "")
            self._context.transport.look_again(peer.id)  # nothing was posted while it was away
            return None
        if not _url(request):
            await self._drop(peer.id)
            return None
        return await self._set(peer, _url(request), request.format, request.token)

    async def set(
        self, caller: Caller, peer_id: str, url: str, *, format_name: str, token: str
    ) -> tuple[Peer, Webhook]:
        """Have a peer's mail posted.

        Raises:
            PeerNotFoundError: there is no such peer.
            NotYourPeerError: it is neither the caller nor the caller's.
            NotPossibleError, WebhookRefusedError: see `check`.
        """
        peer = self._context.managed(caller, peer_id)
        await self._set(peer, url, format_name, token)
        return peer, self._webhooks[peer.id]

    async def remove(self, caller: Caller, peer_id: str) -> Peer:
        """Post a peer's mail no more; it waits in the mailbox.

        Raises:
            PeerNotFoundError: there is no such peer.
            NotYourPeerError: it is neither the caller nor the caller's.
        """
        peer = self._context.managed(caller, peer_id)
        await self._drop(peer.id)
        return peer

    async def _set(self, peer: Peer, url: str, format_name: str, token: str) -> str | None:
        format_ = self._read(url, format_name, token, machine=peer.machine)
        known = self._webhooks.get(peer.id)
        if known is None and len(self._webhooks) >= WEBHOOKS:
            raise NotPossibleError(
                f"{WEBHOOKS} peers have a webhook", "Remove one: claude-peers webhook list."
            )
        # Whoever receives at one address is not to sign for another.
        same = known is not None and known.url == url
        secret = known.secret if known and same else make_secret(secrets.token_bytes(SECRET_BYTES))
        webhook = Webhook(peer_id=peer.id, url=url, format=format_, secret=secret, token=token)
        if webhook != known:
            await self._context.store.save_webhook(webhook)
            self._webhooks[peer.id] = webhook
        self._show(peer.id, "")
        self.changed(peer.id)
        return None if same else secret

    def _read(self, url: str, format_name: str, token: str, *, machine: str) -> Format:
        check_target(read_target(url), self.rules, machine=machine)
        if not (token.isascii() and token.isprintable()) or len(token) > TOKEN or " " in token:
            raise NotPossibleError("`token` is not what a header can carry")
        try:
            return Format(format_name or Format.AGENTMESH)
        except ValueError:
            raise NotPossibleError(
                f"{one_line(format_name, NAME)!r} is no webhook format",
                f"Use one of {', '.join(Format)}.",
            ) from None

    async def _drop(self, peer_id: PeerId) -> None:
        if peer_id in self._webhooks:
            await self._context.store.drop_webhook(peer_id)
            self._webhooks.pop(peer_id, None)
            self._route(peer_id, "")
            self.changed(peer_id)

    # Posting

    async def next(self, peer_id: PeerId) -> Errand | None:
        """Take a peer's oldest message for a post, or nothing.

        Raises:
            StoreError: nothing was taken.
        """
        context, webhook = self._context, self.get(peer_id)
        peer = context.roster.get(peer_id)
        if webhook is None or peer is None or peer.presence is not Presence.PRESENT:
            return None
        message = await self._take(peer_id)
        if message is None:
            return None
        # Without a deadline of its own: a post has one, and its lease ends with it.
        context.leases.begin(peer_id, [message.id], deadline=float("inf"))
        secret = context.options.fleet_secret
        signature = agentmesh.sign(secret, message) if secret else None
        sender, deliveries = context.roster.get(message.from_id), context.store.deliveries
        return Errand(webhook, message, sender, signature, deliveries)

    async def _take(self, peer_id: PeerId) -> Message | None:
        """Lease the oldest message to be posted; one that had its only post is dead instead."""
        store, now = self._context.store, self._context.clock.wall
        while found := await store.hand_out(peer_id, Claim(limit=1, via=ROUTE), now=now()):
            (message,) = found
            try:
                if not await self._had_its_post(message):
                    return message
                why = posted_once("what came of it is not known")
                await store.move(peer_id, [message.id], Event.GIVE_UP, now=now(), via=why)
            except ClaudePeersError:
                self._context.give_back(peer_id, (message.id,), "it was not posted")
                raise
        return None

    async def _had_its_post(self, message: Message) -> bool:
        """Whether an earlier broker has posted what may be posted once."""
        if message.qos != AT_MOST_ONCE or not message.deliveries:
            return False
        (story,) = await self._context.store.stories([message.id])
        posts = [each for each in story.steps if (each.event, each.via) == (Event.LEASE, ROUTE)]
        return len(posts) > 1  # this one is noted already

    async def came_of(self, errand: Errand, outcome: Outcome, told: str) -> None:
        """Settle a post; `told` says what came back, for the message's story and the roster.

        Raises:
            StoreError: the message is still leased, until the next broker or a second call.
        """
        context, peer_id = self._context, errand.webhook.peer_id
        event, via = _end(errand.message, outcome, one_line(told, NAME))
        ids = (errand.message.id,)
        await context.store.move(peer_id, ids, event, now=context.clock.wall(), via=via)
        context.leases.acknowledge(peer_id, ids)
        if outcome is Outcome.DELIVERED:
            context.heard_of(peer_id)
            context.transport.settled(peer_id, list(ids))  # a session of the peer may have it, too
            self._show(peer_id, "")
            return
        self._show(peer_id, told)
        if outcome is Outcome.GONE and self._webhooks.get(peer_id) is errand.webhook:
            ended = replace(errand.webhook, problem=f"the receiver answered {told}")
            await context.store.save_webhook(ended)
            self._webhooks[peer_id] = ended
            self._route(peer_id, "")

    def _show(self, peer_id: PeerId, problem: str) -> None:
        """Let the roster tell that a peer's mail is posted, and whether that works."""
        if self.get(peer_id) is not None:
            self._route(peer_id, f"{ROUTE}, failing: {problem}" if problem else ROUTE)

    def _route(self, peer_id: PeerId, route: str) -> None:
        peer = self._context.roster.get(peer_id)
        if peer is not None and peer.route != one_line(route, NAME):
            self._context.roster.note(replace(peer, route=one_line(route, NAME)))


def _end(message: Message, outcome: Outcome, told: str) -> tuple[Event, str]:
    """Return what a post means for its message, and what its story says of it."""
    if outcome is Outcome.DELIVERED:
        return Event.SEE, f"{ROUTE}: {told}"
    if message.qos == AT_MOST_ONCE:
        return Event.GIVE_UP, posted_once(told)
    return Event.RETURN, f"{ROUTE}: {told}"


def _url(request: TransportRequest) -> str:
    return (request.webhook_url or "") if request.type == ROUTE else ""
