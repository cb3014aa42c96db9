"""What to tell when a connection to a broker fails, and what to do about it."""

import h11

from claude_peers.client.exchange import TooLargeError
from claude_peers.core.errors import NoBrokerError


def stranger(where: str) -> NoBrokerError:
    """Return what to tell when somebody else has the port."""
    return NoBrokerError(
        f"A stranger, not a broker, listens on {where}",
        "End that program, or set CLAUDE_PEERS_PORT to choose another port.",
    )


def explained(
    error: OSError | h11.RemoteProtocolError, where: str, *, patience: float, abroad: bool
) -> NoBrokerError:
    """Return an error of a connection as one that tells what to do.

    Args:
        error: what happened.
        where: `HOST:PORT` of the broker.
        patience: seconds it was waited for.
        abroad: whether that is another machine.
    """
    match error:
        case ConnectionRefusedError():
            there = " there" if abroad else ""
            return NoBrokerError(
                f"No broker is running on {where}",
                f"Start an agent session with claude-peers, or run `claude-peers serve`{there}.",
            )
        case TimeoutError():
            return NoBrokerError(
                f"The listener on {where} did not answer within {patience:g} s",
                "Run `claude-peers doctor` to see who listens there and whether it is stopped.",
            )
        case TooLargeError():
            return NoBrokerError(
                f"The listener on {where} sent an answer without end",
                "Run `claude-peers doctor` to see who listens there.",
            )
        case h11.RemoteProtocolError():
            return stranger(where)
        case ConnectionError():
            return NoBrokerError(
                f"The broker on {where} broke off before its answer was complete",
                "Try again: when a broker ends, another takes over within a second. If it was to "
                "send a message, look first: `claude-peers log` shows whether it was stored.",
                retry_after=0.1,
            )
        case _:
            return NoBrokerError(
                f"The system does not let us talk to {where}: {error.strerror}",
                "See that the network between the two machines works."
                if abroad
                else "If this runs in a sandbox, allow connections to 127.0.0.1.",
            )
