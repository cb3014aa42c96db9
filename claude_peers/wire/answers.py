"""What each operation answers, as shapes that only type checkers and the API document read.

An operation names its shape as its return annotation, under `TYPE_CHECKING`: no process pays for
these classes until somebody asks for the document (`gateway.openapi`). Fields that may be missing
are `NotRequired`; further ones may come, so clients pass over what they do not know.
"""

from typing import Literal, NotRequired, TypedDict

from claude_peers.core.models import Presence, State, Trust


class Done(TypedDict):
    """It is done."""

    ok: Literal[True]


class Refused(TypedDict):
    """Why a request was refused.

    Attributes:
        error: one short sentence without its full stop.
        code: stable, for programs.
        remedy: the next thing to do, a full sentence.
        retry_after: seconds after which the same request may succeed.
    """

    error: str
    code: str
    remedy: NotRequired[str]
    retry_after: NotRequired[float]


class NotSent(Refused):
    """Why a message was not accepted; upstream's clients expect this with status 200.

    Attributes:
        delivered_to: of a broadcast: nobody.
    """

    ok: Literal[False]
    delivered_to: NotRequired[list[str]]


class Joined(TypedDict):
    """A peer's credentials.

    Attributes:
        id: its id, for good: 8 characters of a-z and 0-9.
        token: what it shows from now on as `Authorization: Bearer TOKEN`.
        name: the name it got.
        secondary: it is a further server of the same agent, and shares the first one's peer.
        webhook_secret: what posts are signed with; shown once, when it is made.
    """

    id: str
    token: str
    name: str
    secondary: NotRequired[Literal[True]]
    webhook_secret: NotRequired[str]


class Peer(TypedDict):
    """A peer as the roster shows it.

    Attributes:
        pid: its process on its machine, if it told one and may be known.
        registered_at: ISO 8601, UTC.
        last_seen: ISO 8601, UTC.
        agent_type: the client's name, such as `claude-code`.
        route: how its client reaches the agent, "" for not at all.
        activity: `idle`, `busy`, or "" where nobody can tell.
        verified: how sure the broker is that requests under its id are its own.
        presence: only of those who are not there.
    """

    id: str
    pid: int | None
    cwd: str
    git_root: str | None
    tty: str | None
    summary: str
    registered_at: str
    last_seen: str
    name: str
    hostname: str
    agent_type: str
    route: str
    activity: str
    verified: Trust
    presence: NotRequired[Presence]


class Named(TypedDict):
    """A peer by id and name."""

    ok: Literal[True]
    id: str
    name: str


class Muted(TypedDict):
    """Whose messages are held back now, or no more."""

    ok: Literal[True]
    peer_id: str
    name: str
    muted: bool


class Sent(TypedDict):
    """A message is durable, and who will get it.

    Attributes:
        message_id: ascending in the order of acceptance, never reused.
        last_seen: of the recipient; ISO 8601, UTC.
        unread: messages in its mailbox, with this one.
        warnings: why it may not be read soon.
        duplicate: it was accepted before, under the same key; nothing was stored.
    """

    ok: Literal[True]
    message_id: int
    state: State
    to_id: str
    to_name: str
    presence: Presence
    route: str
    activity: str
    last_seen: str
    unread: int
    warnings: list[str]
    duplicate: NotRequired[Literal[True]]


class Message(TypedDict):
    """A message as it is handed out.

    Attributes:
        sent_at: ISO 8601, UTC.
        delivered: always 0, as upstream has it of unread mail.
        topic: what it was published to; a scope begins with `@`.
        retained: it is the topic's last value, from before the subscription.
        uid: unique in the world; what receivers deduplicate by.
        verified: the broker knows that the sender is `from_id`.
        thread: id of the message that the conversation began with.
        inherited: it was meant for an earlier holder of the recipient's name.
        redelivered: how often it was handed out before.
        expires_at: after which it is dead: seconds since the epoch; a text for agentmesh's clients.
        qos, ack_deadline, retry_count, max_retries: for agentmesh's clients only.
        signature: where messages are signed; for agentmesh's clients null where they are not.
    """

    id: int
    from_id: str
    to_id: str
    text: str
    sent_at: str
    delivered: Literal[0]
    topic: str | None
    uid: str
    verified: bool
    from_name: NotRequired[str | None]
    retained: NotRequired[Literal[True]]
    reply_to: NotRequired[int]
    intent: NotRequired[str]
    thread: NotRequired[int]
    inherited: NotRequired[Literal[True]]
    redelivered: NotRequired[int]
    expires_at: NotRequired[float | str]
    qos: NotRequired[int]
    ack_deadline: NotRequired[str | None]
    retry_count: NotRequired[int]
    max_retries: NotRequired[int]
    signature: NotRequired[str | None]


class Mail(TypedDict):
    """Messages of one mailbox, oldest first."""

    messages: list[Message]


class Letter(Message):
    """A message in whatever state, with the names of its ends as far as they are known.

    Attributes:
        ended_at: seconds since the epoch when its state became final.
        reason: why it is dead.
    """

    to_name: str | None
    state: State
    ended_at: float | None
    reason: str | None


class History(TypedDict):
    """Messages of all mailboxes, oldest first."""

    messages: list[Letter]


class DeadLetter(TypedDict):
    """A message that nobody read in time.

    Attributes:
        original_message_id: the same as `id`, for agentmesh's clients.
        failed_at: ISO 8601, UTC.
        deliveries: how often it was handed out.
    """

    id: int
    original_message_id: int
    from_id: str
    to_id: str
    text: str
    topic: str | None
    sent_at: str
    failed_at: str
    reason: str | None
    deliveries: int
    from_name: str | None
    to_name: str | None


class DeadLetters(TypedDict):
    """Dead letters, newest first."""

    dead_letters: list[DeadLetter]


class Step(TypedDict):
    """One thing that happened to a message.

    Attributes:
        at: seconds since the epoch.
        event: what, as docs/delivery.md names it.
        via: over which route, by which operation, or why.
    """

    at: float
    event: str
    via: str


class Fate(TypedDict):
    """What became of a message, its text left out.

    Attributes:
        hops: how many answers it is away from the beginning of its thread.
        steps: everything that happened to it, oldest first.
        presence: of the recipient, if it is known.
        next: what happens next, as a sentence.
    """

    id: int
    from_id: str
    to_id: str
    sent_at: str
    delivered: Literal[0]
    topic: str | None
    uid: str
    verified: bool
    retained: NotRequired[Literal[True]]
    reply_to: NotRequired[int]
    intent: NotRequired[str]
    thread: NotRequired[int]
    inherited: NotRequired[Literal[True]]
    redelivered: NotRequired[int]
    expires_at: float
    state: State
    ended_at: float | None
    reason: str | None
    hops: int
    steps: list[Step]
    from_name: str | None
    to_name: str | None
    presence: Presence | None
    next: str


class Acknowledged(Done):
    """How many messages this changed."""

    acked: int


class Released(Done):
    """How many messages this changed."""

    released: int


class Pushed(Done):
    """How many messages this changed."""

    pushed: int
