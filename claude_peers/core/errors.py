"""Every expected failure: a stable code, an HTTP status, what happened and what to do about it."""

from typing import ClassVar


class ClaudePeersError(Exception):
    """Base of all expected failures.

    Attributes:
        code: stable, for machines.
        http_status: what the gateway answers with.
        business: a refusal that upstream's clients expect as 200 with `"ok": false`.
        fact: one short sentence without its full stop, kept for clients that print it verbatim.
        remedy: the next thing to do, a full sentence.
        retry_after: seconds after which the same request may succeed, or None.
    """

    code: ClassVar[str] = "error"
    http_status: ClassVar[int] = 400
    business: ClassVar[bool] = False

    def __init__(self, fact: str, remedy: str, *, retry_after: float | None = None) -> None:
        super().__init__(f"{fact}. {remedy}")
        self.fact = fact
        self.remedy = remedy
        self.retry_after = retry_after


class BadRequestError(ClaudePeersError):
    """The request's body or arguments are not what the operation takes."""

    code = "bad_request"

    def __init__(self, fact: str, remedy: str = "Correct the request and send it again.") -> None:
        super().__init__(fact, remedy)


class NotPossibleError(BadRequestError):
    """The request is well-formed, but cannot be done as things are."""

    code = "not_possible"
    http_status = 409


class SettingsError(ClaudePeersError):
    """An environment variable holds a value that cannot be used."""

    code = "bad_setting"

    def __init__(self, variable: str, value: str, remedy: str) -> None:
        super().__init__(f"{variable}={value!r} cannot be used", remedy)
        self.variable = variable


class PeerNotFoundError(ClaudePeersError):
    """Nobody is registered under this id, name or path."""

    code = "peer_not_found"
    http_status = 404
    business = True

    def __init__(self, target: str) -> None:
        super().__init__(f"Peer {target} not found", "Call list_peers for current ids and names.")
        self.target = target


class AmbiguousPeerError(ClaudePeersError):
    """Several peers answer to this target, so nothing was sent."""

    code = "peer_ambiguous"
    http_status = 409
    business = True

    def __init__(self, target: str, candidates: tuple[str, ...]) -> None:
        super().__init__(
            f"{target} could be any of {', '.join(candidates)}",
            "Nothing was sent; name one of them by id.",
        )
        self.candidates = candidates


class NotYourPeerError(ClaudePeersError):
    """The caller is not the process, or does not hold the token, that this id belongs to."""

    code = "not_your_peer"
    http_status = 401

    def __init__(self, peer_id: str) -> None:
        super().__init__(
            f"Peer {peer_id} belongs to another process",
            "Use your own id, or send the token that /register returned for this one.",
        )


class SecretRequiredError(ClaudePeersError):
    """The request needs proof that the caller knows this user's secret."""

    code = "secret_required"
    http_status = 401

    def __init__(self) -> None:
        super().__init__(
            "This request needs proof of the user's secret",
            "Use the claude-peers command line of the same user.",
        )


class TextTooLongError(ClaudePeersError):
    """A message's text is over the limit."""

    code = "text_too_long"
    http_status = 413
    business = True

    def __init__(self, size: int, limit: int) -> None:
        super().__init__(
            f"The text has {size} bytes, the limit is {limit}",
            "Put the long part in a file and send its path.",
        )


class MailboxFullError(ClaudePeersError):
    """The recipient has too much unread mail."""

    code = "mailbox_full"
    http_status = 429
    business = True

    def __init__(self, peer_id: str, unread: int) -> None:
        super().__init__(
            f"The mailbox of {peer_id} is full ({unread} unread)",
            "Wait until that peer has called check_messages.",
            retry_after=30.0,
        )


class RateLimitedError(ClaudePeersError):
    """The sender has sent too many messages in a minute."""

    code = "rate_limited"
    http_status = 429
    business = True

    def __init__(self, limit: int, wait: float) -> None:
        super().__init__(
            f"You are sending more than {limit} messages a minute",
            f"Wait {wait:.1f} s, and put several things into one message.",
            retry_after=wait,
        )


class LoopGuardError(ClaudePeersError):
    """Two peers answer each other so fast that it looks like a loop."""

    code = "loop_guard"
    http_status = 429
    business = True

    def __init__(self, limit: int, wait: float) -> None:
        super().__init__(
            f"You and this peer are answering each other more than {limit} times a minute",
            f"Wait {wait:.1f} s; if nothing needs an answer, do not answer.",
            retry_after=wait,
        )


class HopLimitError(ClaudePeersError):
    """A chain of answers to answers has become too long."""

    code = "hop_limit"
    http_status = 429
    business = True

    def __init__(self, limit: int) -> None:
        super().__init__(
            f"This thread has {limit} answers to answers",
            "If there is more to say, send it without reply_to; else leave it.",
        )


class TooManyTopicsError(ClaudePeersError):
    """A peer has too many subscriptions, or too many topics have a value that is kept."""

    code = "too_many_topics"
    http_status = 429
    business = True


class RetainedTooLongError(ClaudePeersError):
    """A text is too long to be kept as a topic's last value."""

    code = "retained_too_long"
    http_status = 413
    business = True

    def __init__(self, size: int, limit: int) -> None:
        super().__init__(
            f"The text has {size} bytes, the last value of a topic may have {limit}",
            "Publish it without retain, or put it in a file and send its path.",
        )


class NameTakenError(ClaudePeersError):
    """Another peer that is there now has this name."""

    code = "name_taken"
    http_status = 409

    def __init__(self, name: str) -> None:
        super().__init__(f"The name {name} is taken", "Choose another one.")


class MessageNotFoundError(ClaudePeersError):
    """There is no such message, or it is none of the caller's business."""

    code = "message_not_found"
    http_status = 404

    def __init__(self, message_id: int) -> None:
        super().__init__(
            f"Message {message_id} not found",
            "Only its sender and its recipient can see a message; read ones are kept for a day.",
        )


class DedupeConflictError(ClaudePeersError):
    """The same dedupe key came with another body."""

    code = "dedupe_conflict"
    http_status = 409
    business = True

    def __init__(self, key: str) -> None:
        super().__init__(
            f"The dedupe key {key} was used for another message",
            "Use a new key for each new message.",
        )


class StoreError(ClaudePeersError):
    """The database refused: full, locked, read-only or damaged."""

    code = "store_failed"
    http_status = 503


class FencedError(ClaudePeersError):
    """Another process leads by now: this one must not write any more."""

    code = "not_leader"
    http_status = 503

    def __init__(self) -> None:
        super().__init__(
            "This broker has been succeeded by another",
            "Try again: the new one is on the same port.",
            retry_after=0.1,
        )


class NoBrokerError(ClaudePeersError):
    """There is no broker to talk to, or none that can be trusted."""

    code = "no_broker"
    http_status = 503


class IllegalTransitionError(Exception):
    """A state machine was driven along an edge it does not have: a bug, never caught."""


class NoFleetSecretError(ClaudePeersError):
    """Messages are not signed here."""

    code = "no_fleet_secret"
    http_status = 409
    business = True

    def __init__(self) -> None:
        super().__init__(
            "Signing not configured on this broker",
            "Set CLAUDE_PEERS_FLEET_SECRET wherever claude-peers is started on this machine.",
        )
