"""How a peer comes in: as itself again, as a successor, or new."""

import hashlib
import secrets
from dataclasses import dataclass, replace

from claude_peers.broker.ports import Here
from claude_peers.broker.roster import Roster
from claude_peers.core import access, identity
from claude_peers.core.limits import KEYS, NAME, PATH, SUMMARY
from claude_peers.core.models import Caller, Peer, PeerId, Presence, Process, Trust
from claude_peers.core.text import one_line
from claude_peers.wire.quirks import client_name
from claude_peers.wire.records import RegisterRequest


@dataclass(frozen=True, slots=True)
class Registration:
    """A registered peer and the token it shows from now on.

    Attributes:
        changed: whether anything but signs of life differs from what is stored.
        replaced: an unproven peer of the same pid that this one takes the place of.
    """

    peer: Peer
    token: str
    changed: bool
    replaced: Peer | None = None


def hash_token(token: str) -> str:
    """Return what is stored of a token."""
    return hashlib.sha256(token.encode("utf-8", "replace")).hexdigest()


def register(
    roster: Roster, caller: Caller, request: RegisterRequest, *, here: Here, at: str, required: bool
) -> Registration:
    """Decide who comes in.

    1. A token of an earlier registration: the same peer, whatever else changed.
    2. The very process of a peer (it owns the socket): the same peer.
    3. Proof of the secret and an identity key of a mailbox that nobody alive holds: adopts it.
    4. Everybody else is new.
    """
    process = None if request.pid is None else here.identify(request.pid)
    proven = caller.knows_secret or (request.proof is not None and caller.proves(request.proof))
    shown = hash_token(request.token) if request.token else None
    known = roster.by_token(shown) or _by_process(roster, caller, process)
    token = request.token if known and known.token_hash == shown else None
    if known is None and proven:
        known = identity.predecessor(request.keys, list(roster))
    trust = Trust.TOKEN if proven else access.trust_of(caller, process, required=required)
    if known is not None and known.trust is Trust.TOKEN:
        trust = Trust.TOKEN
    token = token or secrets.token_hex(32)
    peer_id = known.id if known else identity.mint(secrets.randbelow, roster.names())
    peer = Peer(
        id=peer_id,
        name=_name(roster, request, known, peer_id),
        process=process,
        pid=request.pid,
        boot=here.boot,
        host=one_line(request.hostname or here.host, NAME),
        cwd=request.cwd[:PATH],
        git_root=request.git_root and request.git_root[:PATH],
        repo=request.repo and request.repo[:PATH],
        tty=request.tty and request.tty[:NAME],
        summary=request.summary[:SUMMARY] or (known.summary if known else ""),
        client=one_line(client_name(request.agent_type, request.client), NAME),
        route=one_line(request.route, NAME),
        trust=trust,
        token_hash=hash_token(token),
        keys=request.keys[:KEYS] if proven else (),
        registered_at=known.registered_at if known else at,
        last_seen=at,
    )
    changed = known is None or replace(known, last_seen=at) != peer
    replaced = None if known else _unproven_twin(roster, peer)
    return Registration(peer, token, changed, replaced)


def _by_process(roster: Roster, caller: Caller, process: Process | None) -> Peer | None:
    if process is None:
        return None
    for peer in roster.present():
        if peer.trust is Trust.PROCESS and peer.process == process and caller.owns(process):
            return peer
    return None


def _unproven_twin(roster: Roster, peer: Peer) -> Peer | None:
    """Upstream replaces whoever has the same pid; here only one unproven peer another."""
    if peer.pid is None or peer.trust is not Trust.OPEN:
        return None
    for other in roster.present():
        if other.pid == peer.pid and other.trust is Trust.OPEN and other.host == peer.host:
            return other
    return None


def _name(roster: Roster, request: RegisterRequest, known: Peer | None, peer_id: PeerId) -> str:
    wanted = (
        identity.as_name(request.name or request.agent_name or "")
        if (request.name or request.agent_name)
        else (known.name if known else _default_name(request, peer_id))
    )
    return identity.free_name(wanted, roster.names(without=peer_id) - {peer_id})


def _default_name(request: RegisterRequest, peer_id: PeerId) -> str:
    folder = (request.git_root or request.cwd).replace("\\", "/").rstrip("/").rpartition("/")[2]
    return identity.as_name(folder) if folder else str(peer_id)


def leave(peer: Peer, presence: Presence, *, at: str) -> Peer:
    """Return a peer that is not there any more."""
    return replace(peer, presence=presence, last_seen=at)
