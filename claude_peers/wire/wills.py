"""What travels about last wills, as agentmesh 0.4 has it (shared/types.ts, `lwt`)."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class LastWill:
    """What is published when its sender is lost; an empty topic takes an earlier one back.

    Attributes:
        retain: keep it as the topic's last value, for who subscribes later.
        qos: 0 is done once written to a stream, 1 once acknowledged.
    """

    topic: str
    message: str = ""
    qos: int = 0
    retain: bool = False
