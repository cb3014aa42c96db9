"""Who may act for a peer, and what class a newcomer belongs to."""

from claude_peers.core.errors import NotYourPeerError
from claude_peers.core.models import Caller, Peer, Process, Trust


def speaks_for(caller: Caller, peer: Peer) -> bool:
    """Whether it is *known* that the caller is this peer."""
    if caller.machine != peer.machine:
        return False
    if caller.token_hash is not None:
        return caller.token_hash == peer.token_hash
    if peer.trust is Trust.PROCESS and peer.process is not None:
        return caller.owns(peer.process)
    return False


def check(caller: Caller, peer: Peer, *, required: bool = False) -> None:
    """Refuse a caller that acts for a peer that is not its own.

    Args:
        caller: who acts.
        peer: for whom.
        required: only the peer's token counts.

    Raises:
        NotYourPeerError: another process's peer, or a token that is not this peer's.
    """
    here = not caller.machine
    if here and peer.trust is Trust.OPEN and caller.token_hash is None and not required:
        return
    if not speaks_for(caller, peer) or (required and caller.token_hash is None):
        raise NotYourPeerError(peer.id)


def check_unknown(caller: Caller, peer_id: str, *, required: bool) -> None:
    """Refuse a caller under an id that is nobody's, if tokens are `required` or it is elsewhere.

    Raises:
        NotYourPeerError: it has not proved that it is its machine's user either.
    """
    if (required or caller.machine) and not caller.is_user_of(caller.machine):
        raise NotYourPeerError(peer_id)


def trust_of(caller: Caller, process: Process | None, *, required: bool) -> Trust:
    """Return the class of a newcomer: `required` allows the token class only."""
    if caller.machine:
        return Trust.REMOTE
    if required:
        return Trust.TOKEN
    if process is not None and caller.owns(process):
        return Trust.PROCESS
    return Trust.OPEN


def signed_as(caller: Caller, name: str) -> str:
    """Return the sender's id of a message from somebody who is not registered, such as `cli`."""
    return f"{name}@{caller.machine}" if caller.machine else name
