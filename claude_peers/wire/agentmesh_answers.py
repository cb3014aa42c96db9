"""What is answered in agentmesh's words, as shapes; see `wire.answers`."""

from typing import NotRequired, TypedDict

from claude_peers.wire.answers import Peer


class Transport(TypedDict):
    """How a peer is reached: `poll`, `webhook`, `websocket` or `channel`."""

    type: str


class ListedPeer(Peer):
    """A peer as the roster shows it, with what it told about itself.

    Attributes:
        agent_name: the name it told; `name` is what it answers to.
        lwt_topic: where it is told that this peer was lost.
        online: it has a connection over which it is told at once.
        broker_url: always null: it is a peer of this broker.
    """

    agent_name: str
    capabilities: list[str]
    transport: Transport
    fleet_id: str | None
    device_id: str | None
    lwt_topic: str | None
    online: bool
    broker_url: None


class Verified(TypedDict):
    """Whether a signature is right, twice."""

    ok: bool
    valid: bool


class FederatedBroker(TypedDict):
    """Another broker; there is none."""

    broker_id: str


class Federation(TypedDict):
    """The brokers this one is federated with: none."""

    broker_id: str
    peers: list[FederatedBroker]
    server_peers: list[FederatedBroker]


class Skill(TypedDict):
    """One thing that can be asked of an agent."""

    id: str
    name: str
    tags: list[str]
    description: NotRequired[str]
    examples: NotRequired[list[str]]


class CardAbilities(TypedDict):
    """What the other end of a card supports.

    Attributes:
        streaming: it is told at once.
        pushNotifications: mail is posted to it.
        stateTransitionHistory: never.
    """

    streaming: bool
    pushNotifications: bool
    stateTransitionHistory: bool


class Provider(TypedDict):
    """Who made it."""

    organization: str
    url: str


class Schemes(TypedDict):
    """How callers show who they are."""

    schemes: list[str]


class CardOwner(TypedDict):
    """Whose card it is, in agentmesh's words."""

    agent_id: str
    agent_type: str
    fleet_id: str | None
    device_id: str | None
    online: bool


class Card(TypedDict):
    """An agent card, as agentmesh 0.4 draws them from A2A's; there is no A2A endpoint behind it."""

    name: str
    description: str
    url: str
    version: str
    provider: NotRequired[Provider]
    capabilities: CardAbilities
    authentication: Schemes
    defaultInputModes: list[str]
    defaultOutputModes: list[str]
    skills: list[Skill]
    agentmesh: NotRequired[CardOwner]
