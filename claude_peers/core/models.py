"""The records everything is about: peers, messages, and who is calling."""

from dataclasses import dataclass, field
from enum import StrEnum
from typing import NewType, Protocol

from claude_peers.core.profile import NOTHING_TOLD, Profile

PeerId = NewType("PeerId", str)
SYSTEM = "claude-peers"
"""From whom a notice of the broker itself comes."""


class Trust(StrEnum):
    """How sure the broker is that a caller speaks for a peer."""

    TOKEN = "token"  # noqa: S105 - the class is named so; it is no credential
    """Bound to the token of its registration at the token's first use, for good."""
    PROCESS = "process"
    """The registered process owns the registering socket; only its sockets act for it."""
    OPEN = "open"
    """No process known, or another's: any caller of the same user on this machine."""
    REMOTE = "remote"
    """On another machine, which shows its token with every request, and the peer its own."""


class Presence(StrEnum):
    """Whether a peer can be reached, and whether it can come back."""

    PRESENT = "present"
    AWAY = "away"
    """Its process is gone, its mailbox waits for a successor with the same identity."""
    DEPARTED = "departed"
    """Gone for good: not addressable, its unread mail stays until it expires."""


class State(StrEnum):
    """Where one message is in its life; `docs/delivery.md` draws the table."""

    QUEUED = "queued"
    LEASED = "leased"
    PUSHED = "pushed"
    HELD = "held"
    SEEN = "seen"
    ANSWERED = "answered"
    DEAD = "dead"


class Intent(StrEnum):
    """What a sender expects; absent if it did not say."""

    REQUEST = "request"
    """An answer; if none comes, the sender is told so, once."""
    INFORM = "inform"
    """Nothing."""
    ACK = "ack"
    """Nothing, and it must not be answered."""


UNREAD = (State.QUEUED, State.LEASED, State.PUSHED, State.HELD)


@dataclass(frozen=True, slots=True, kw_only=True)
class Process:
    """One process for good: a pid alone names a different process after a while.

    Attributes:
        started: its start time as the machine tells it (opaque; equal means the same process).
    """

    pid: int
    started: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """A registered participant; usually one agent session.

    Attributes:
        keys: hashed identity keys, strongest first; a successor with one of them may adopt
            the mailbox (see `core.identity`).
        former: names it had, each with the time (seconds since the epoch) until it answers to it.
        muted: ids of senders whose messages it does not want to be offered.
        activity: whether its agent is `idle` or `busy`, "" where nobody can tell; not stored.
        boot: the machine's boot id, so that a pid of before the last reboot is known as dead.
        machine: the joined machine that it is on, "" for this one.
        shared: whether peers on other machines see all of it (`core.sharing`).
        profile: what it tells about itself in agentmesh's words.
        registered_at, last_seen: ISO 8601, UTC, milliseconds, as upstream sends them.
    """

    id: PeerId
    name: str
    process: Process | None = None
    pid: int | None = None
    boot: str = ""
    host: str = ""
    cwd: str = ""
    git_root: str | None = None
    repo: str | None = None
    tty: str | None = None
    summary: str = ""
    client: str = ""
    route: str = ""
    trust: Trust = Trust.OPEN
    presence: Presence = Presence.PRESENT
    token_hash: str | None = None
    keys: tuple[str, ...] = ()
    former: tuple[tuple[str, float], ...] = ()
    muted: tuple[str, ...] = ()
    activity: str = ""
    machine: str = ""
    shared: bool = False
    profile: Profile = NOTHING_TOLD
    registered_at: str = ""
    last_seen: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """A message before the store has accepted it.

    Attributes:
        verified: the broker knows that the caller is `from_id`.
        expires_at: seconds since the epoch, after which it is dead.
        to_name: the name it was addressed by; it waits for the name's next holder.
        held: the recipient does not want to be offered it.
        owed_at: seconds since the epoch when a request's sender is told that no answer came.
        notice_of: the request about which this tells; it is accepted once, while one is owed.
        topic: what it was published to, if it was.
        retained: it is the topic's last value, given to who has just subscribed.
        qos: 0 is done once written to a stream, 1 once acknowledged (`core.delivery`).
    """

    from_id: str
    to_id: PeerId
    text: str
    sent_at: str
    expires_at: float
    verified: bool = False
    reply_to: int | None = None
    dedupe_key: str | None = None
    intent: str = ""
    to_name: str | None = None
    held: bool = False
    owed_at: float | None = None
    notice_of: int | None = None
    topic: str | None = None
    retained: bool = False
    qos: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """An accepted message.

    Attributes:
        id: ascending in the order of acceptance, never reused.
        uid: unique in the world; what receivers deduplicate by.
        deliveries: how often it was handed out or pushed before now.
        thread, hops: the message that the conversation began with, and how far it is from it.
        inherited: it was meant for an earlier holder of the recipient's name.
        reason: why it is dead.
        topic, retained, qos: see `Draft`.
    """

    id: int
    uid: str
    from_id: str
    to_id: PeerId
    text: str
    sent_at: str
    state: State = State.QUEUED
    verified: bool = False
    reply_to: int | None = None
    deliveries: int = 0
    intent: str = ""
    thread: int | None = None
    hops: int = 0
    to_name: str | None = None
    inherited: bool = False
    expires_at: float = 0.0
    ended_at: float | None = None
    reason: str | None = None
    topic: str | None = None
    retained: bool = False
    qos: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Retained:
    """The last value of a topic, for who subscribes later; an empty text is the end of it.

    Attributes:
        expires_at: seconds since the epoch after which it is given to nobody, or None.
        qos: see `Draft`.
    """

    topic: str
    from_id: str
    text: str
    sent_at: str
    verified: bool = False
    expires_at: float | None = None
    qos: int = 1


@dataclass(frozen=True, slots=True)
class Step:
    """One thing that happened to a message.

    Attributes:
        at: seconds since the epoch.
        event: what, as in `core.delivery.Event`.
        via: over which route, by which operation, or why.
    """

    at: float
    event: str
    via: str = ""


@dataclass(frozen=True, slots=True)
class Story:
    """A message and everything that happened to it, oldest first."""

    message: Message
    steps: tuple[Step, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Receipt:
    """The store's word that a message is durable.

    Attributes:
        duplicate: it was accepted before.
        unread: messages in the recipient's mailbox, with this one; `size` is their bytes.
        replied_to: the message that this one replies to, if there is one.
    """

    message: Message
    duplicate: bool = False
    replied_to: Message | None = None
    unread: int = 0
    size: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Ledger:
    """How many messages there are in each state; `balanced` must always hold."""

    accepted: int
    purged: int
    states: dict[State, int] = field(default_factory=dict)

    @property
    def balanced(self) -> bool:
        """Whether every accepted message is accounted for."""
        return self.accepted == sum(self.states.values()) + self.purged


class Caller(Protocol):
    """Who is making a request, as far as the broker can tell."""

    @property
    def token_hash(self) -> str | None:
        """SHA-256 of the presented bearer token, hexadecimal, or None."""
        ...

    @property
    def knows_secret(self) -> bool:
        """Whether it has proved that it knows this user's secret."""
        ...

    @property
    def machine(self) -> str:
        """The joined machine it is on, as its token has shown; "" for this machine."""
        ...

    @property
    def source(self) -> str:
        """What its rate is counted by if it sends as nobody who is registered: its user."""
        ...

    @property
    def traceable(self) -> bool:
        """Whether the system tells which socket is the caller's, and so whose it is not."""
        ...

    def is_user_of(self, machine: str) -> bool:
        """Whether it has proved to act for the user of a machine ("" is this), not for an agent."""
        ...

    def owns(self, process: Process) -> bool:
        """Whether `process` owns the calling socket; False where the system cannot tell."""
        ...

    def proves(self, answer: str) -> bool:
        """Whether `answer` is the right one to the connection's challenge."""
        ...
