"""Last wills: what is published for a peer when it is lost, as MQTT 3.1.1 section 3.1.2.5 has it.

A will is *armed* by who registers or connects with one, and again by whoever comes back. It is
published once, and disarmed in the same transaction, when its peer is lost: its connection broke
and it gave no sign of life since, its process is gone, or it has been silent for too long. Who
says goodbye takes its will along.
"""

from dataclasses import dataclass

from claude_peers.core.errors import RetainedTooLongError
from claude_peers.core.limits import RETAINED_TEXT
from claude_peers.core.models import PeerId
from claude_peers.core.topics import check_topic

RECONNECT = 10.0
"""Seconds after its connection broke in which a peer may come back without being missed.

One whose process is seen to run has as long as one without a connection may be silent.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Will:
    """What one peer wants to be published.

    Attributes:
        qos: 0 is over once it is written to a stream, 1 once it is acknowledged.
        retain: it becomes the topic's last value.
        armed: it has not been published since its peer came.
    """

    peer_id: PeerId
    topic: str
    text: str
    qos: int = 0
    retain: bool = False
    armed: bool = True


def check_will(will: Will) -> None:
    """Refuse what could not be published later, when nobody is there to be told.

    Raises:
        BadRequestError: that is no topic.
        RetainedTooLongError: the text is longer than a last value may be.
    """
    check_topic(will.topic)
    size = len(will.text.encode(errors="replace"))
    if size > RETAINED_TEXT:
        raise RetainedTooLongError(size, RETAINED_TEXT)
