"""What travels about webhooks: requests, and how an agentmesh peer says it wants one."""

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class TransportRequest:
    """How a peer wants to be reached, as agentmesh has it (shared/types.ts, `transport`).

    Attributes:
        type: `webhook` has mail posted to `webhook_url`; anything else ends that.
        format: `agentmesh` (the usual), `standard` or `openclaw`.
        token: what the receiver wants as `Authorization: Bearer`.
        poll_interval_ms: is not needed.
    """

    type: str = "poll"
    webhook_url: str | None = None
    format: str = ""
    token: str = ""
    poll_interval_ms: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SetWebhookRequest:
    """Have a peer's mail posted to `url`; `id` may be a name for the user.

    Attributes:
        format: `agentmesh` (the usual), `standard` or `openclaw`.
        token: what the receiver wants as `Authorization: Bearer`.
    """

    id: str
    url: str
    format: str = ""
    token: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class HookTokenRequest:
    """Who may publish to a topic, or to all that a pattern matches, by `POST /hook/TOPIC`.

    Attributes:
        signed: whether posts may also be signed with the token, as GitHub does; it is kept then.
    """

    name: str = field(metadata={"form": "name"})
    topic: str
    signed: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class NamedRequest:
    """Anything that needs no more than a name."""

    name: str = ""
