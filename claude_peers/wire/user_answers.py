"""What is answered about the broker itself and about other machines, as shapes.

See `wire.answers`, which has those about peers and mail.
"""

from typing import Literal, NotRequired, TypedDict

from claude_peers.core.machines import Membership
from claude_peers.wire.answers import Done


class SteppedDown(Done):
    """The epoch that ends."""

    epoch: int


class Ledger(TypedDict):
    """Every accepted message, accounted for.

    Attributes:
        purged: forgotten after their time.
        states: how many there are in each state.
        balanced: accepted is the sum of the states and what was purged; always true.
        refused: sends that were refused, by their error's code.
    """

    ok: Literal[True]
    accepted: int
    purged: int
    states: dict[str, int]
    balanced: bool
    refused: dict[str, int]


class Invited(TypedDict):
    """An invite for another machine.

    Attributes:
        invitation: the join string, good once.
        addresses: where that machine will look for this broker, `HOST:PORT`.
        expires_at: ISO 8601, UTC.
    """

    ok: Literal[True]
    name: str
    invitation: str
    addresses: list[str]
    expires_at: str


class MachineName(TypedDict):
    """What a machine is called here."""

    ok: Literal[True]
    name: str


class Revoked(MachineName):
    """Which machine may come no more, and how many of its peers were let go."""

    peers: int


class Machine(TypedDict):
    """Another machine.

    Attributes:
        peers: how many of its peers are there.
        invited_at: this and the other times are ISO 8601, UTC.
    """

    name: str
    state: Membership | Literal["expired"]
    peers: int
    invited_at: str
    expires_at: str | None
    joined_at: str | None
    revoked_at: str | None


class Problem(TypedDict):
    """What is wrong, and what to do."""

    error: str
    remedy: str


class Machines(TypedDict):
    """The machines that were invited, and where this broker listens for them."""

    machines: list[Machine]
    listening: list[str]
    problem: Problem | None


class Health(TypedDict):
    """That the broker is there.

    Attributes:
        peers: how many are there now.
        version: `claude-peers/` and its version.
        epoch: counts the leaders so far.
        agents: the same as `peers`, as agentmesh has it.
        ws_connections: peers that are told at once, over a connection of whatever kind.
        fleet_id: the fleet of peers that name none.
        signing: messages carry a signature.
        rate_limit_rpm: messages a minute and sender; null for no limit.
    """

    status: Literal["ok"]
    peers: int
    version: str
    epoch: int
    agents: int
    ws_connections: int
    fleet_id: str | None
    signing: bool
    rate_limit_rpm: int | None


class Status(Health):
    """What the node that leads does; other machines are told its health only.

    Attributes:
        pid: of the leader.
        standby: pid of its named successor.
        sessions: live connections.
        listening: where other machines reach it, `HOST:PORT`.
        listening_problem: why not all that should listen do.
    """

    pid: NotRequired[int]
    port: NotRequired[int]
    standby: NotRequired[int | None]
    sessions: NotRequired[int]
    listening: NotRequired[list[str]]
    listening_problem: NotRequired[str | None]
