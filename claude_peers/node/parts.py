"""The parts a leader is assembled from, made for this process and this user's settings."""

import os
import time
from dataclasses import replace
from typing import Any

from claude_peers.broker.context import Options
from claude_peers.broker.ports import Here
from claude_peers.broker.webhooks import Webhooks
from claude_peers.core.delivery import DIRECT_TTL
from claude_peers.core.limits import Limits
from claude_peers.core.models import PeerId
from claude_peers.core.profile import group
from claude_peers.core.webhooks import Rules
from claude_peers.gateway.mcp import Endpoint
from claude_peers.host import files, processes, sockets
from claude_peers.node.announcer import Announcer
from claude_peers.settings import Settings
from claude_peers.stores.sqlite.adopt import Adoption
from claude_peers.stores.sqlite.store import SqliteStore
from claude_peers.transports.live import LiveConnections
from claude_peers.transports.webhook_http import Sender
from claude_peers.transports.webhooks import WebhookPosts

_AGENTMESH = "~/.agentmesh.db"
_SLEEPLESS: int | None = getattr(time, "CLOCK_BOOTTIME", getattr(time, "CLOCK_MONOTONIC", None))
"""The system's clock that counts sleep: Linux, macOS; `time.monotonic` is such a one on Windows."""


class Clock:
    """The Clock port."""

    def wall(self) -> float:
        """See `broker.ports.Clock`."""
        return time.time()

    def monotonic(self) -> float:
        """See `broker.ports.Clock`; it goes on while the machine sleeps."""
        return time.monotonic() if _SLEEPLESS is None else time.clock_gettime(_SLEEPLESS)


class Reach:
    """The Transport port, for whichever transports the broker is given."""

    def __init__(self) -> None:
        self.live: LiveConnections
        self.posts: WebhookPosts

    def reaches(self, peer_id: PeerId) -> bool:
        """See `broker.ports.Transport`."""
        return self.live.reaches(peer_id) or self.posts.reaches(peer_id)

    def deliver(self, message: Any) -> None:
        """See `broker.ports.Transport`."""
        self.live.deliver(message)
        self.posts.deliver(message)

    def settled(self, peer_id: PeerId, ids: list[int]) -> None:
        """See `broker.ports.Transport`."""
        self.live.settled(peer_id, ids)

    def look_again(self, peer_id: PeerId) -> None:
        """See `broker.ports.Transport`."""
        self.live.look_again(peer_id)
        self.posts.look_again(peer_id)

    def dismiss(self, peer_id: PeerId) -> None:
        """See `broker.ports.Transport`."""
        self.live.dismiss(peer_id)


def posts(webhooks: Webhooks, settings: Settings, *, port: int) -> WebhookPosts:
    """Return what posts to webhooks, by this user's rules; `port` is the broker's own."""
    webhooks.rules = Rules(own_port=port, allowed=settings.webhook_allow)
    clock = Clock()
    send = Sender(
        clock,
        lambda: webhooks.rules,
        listener_uid=sockets.listener_uid,
        own_uid=processes.user_id(),
    )
    return WebhookPosts(webhooks, clock, send)


def here() -> Here:
    """Return what the broker knows of this machine."""
    return Here(
        host=processes.host_name(),
        boot=processes.boot_id(),
        identify=processes.identify,
        alive=processes.alive,
    )


def options(settings: Settings) -> Options:
    """Return what the user decided about the broker."""
    limits = Limits(per_minute=settings.rate_limit, mailbox=settings.mailbox_limit)
    if limits.per_minute:  # who may send three a minute may not send sixty at once
        limits = replace(limits, burst=min(limits.burst, limits.per_minute))
    return Options(
        limits=limits,
        require_token=settings.require_token,
        share=settings.share == "full",
        fleet_secret=(settings.fleet_secret or "").encode(),
        fleet_id=group(settings.fleet_id),
        broker_id=settings.broker_id or f"{processes.host_name()}:{settings.port}",
        ack_within=settings.ack_deadline_ms / 1000.0,
        silence=settings.peer_ttl_ms / 1000.0,
    )


def announcer(settings: Settings) -> Announcer:
    """Return what tells the local network of this broker, if the user wants that."""
    target = settings.discovery_target if settings.discovery else None
    return Announcer(target, host=processes.host_name(), fleet_id=group(settings.fleet_id))


def mcp() -> Endpoint:
    """Load what answers `/mcp`; it takes its time, so on a thread, and only where it is used.

    Raises:
        ClaudePeersError: the official SDK is not installed.
    """
    from claude_peers.session import hosted

    return hosted.load()


def store(settings: Settings) -> SqliteStore:
    """Return the database of a leader, private, and adopting from upstream's; not opened yet.

    Raises:
        StoreError: its file cannot be used.
    """
    path = settings.database_path
    for suffix in ("", "-wal", "-shm"):
        if not suffix or os.path.exists(path + suffix):
            files.private_file(path + suffix)
    elsewhere = os.path.expanduser(_AGENTMESH)
    # Whose database that is already adopts from it as its own.
    apart = os.path.exists(elsewhere) and not os.path.samefile(elsewhere, path)
    adoption = Adoption(
        identify=processes.identify,
        boot=processes.boot_id(),
        host=processes.host_name(),
        now=time.time(),
        lifetime=DIRECT_TTL,
        elsewhere=elsewhere if apart else None,
    )
    return SqliteStore(path, adoption, deliveries=settings.max_deliveries)
