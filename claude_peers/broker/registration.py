"""How a peer comes in: as itself again, as a successor, or new."""

import hashlib
import secrets
from collections.abc import Callable
from dataclasses import dataclass, replace

from claude_peers.broker.ports import Here
from claude_peers.broker.roster import Roster
from claude_peers.core import access, identity, liveness
from claude_peers.core.errors import NotYourPeerError
from claude_peers.core.limits import KEYS, NAME, PATH, SUMMARY
from claude_peers.core.models import Caller, Peer, PeerId, Presence, Process, Trust
from claude_peers.core.profile import Profile, granted, group, words
from claude_peers.core.text import one_line
from claude_peers.wire.quirks import client_name
from claude_peers.wire.records import RegisterRequest


@dataclass(frozen=True, slots=True)
class Registration:
    """A registered peer and the token it shows from now on.

    Attributes:
        changed: whether anything but signs of life differs from what is stored.
        replaced: an unproven peer of the same pid that this one takes the place of.
        secondary: it is a second server of the same agent, and shares the first one's peer.
    """

    peer: Peer
    token: str
    changed: bool
    replaced: Peer | None = None
    secondary: bool = False


def hash_token(token: str) -> str:
    """Return what is stored of a token."""
    return hashlib.sha256(token.encode("utf-8", "replace")).hexdigest()


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """What a registration is judged by, besides the request.

    Attributes:
        here: facts about this machine.
        at: the time to show.
        required: whether only the token class is let in.
        linked: whether a peer has a live connection, so that nobody else can be it.
        share: whether other machines see all of this one's peers.
        fleet_id: the fleet of peers that name none.
    """

    here: Here
    at: str
    required: bool
    linked: Callable[[PeerId], bool]
    share: bool = False
    fleet_id: str | None = None


def register(
    roster: Roster, caller: Caller, request: RegisterRequest, terms: Terms
) -> Registration:
    """Decide who comes in.

    1. A token of an earlier registration: the same peer, whatever else changed.
    2. The very process of a peer (it owns the socket): the same peer.
    3. Proof of the secret and the live key of a peer that is there: its agent's second server,
       which shares the peer. It may act for it, but is not pushed to and ends nothing.
    4. Proof of the secret and an identity key of a mailbox that nobody alive holds: adopts it.
    5. Everybody else is new.
    """
    process = _process(request, terms.here) if not caller.machine else None
    proven = _is_proven(caller, request)
    shown = hash_token(request.token) if request.token else None
    if proven and process is not None and caller.traceable and not caller.owns(process):
        process = None  # the pid is another container's; here it is somebody else's
    beside = [peer for peer in roster if peer.machine == caller.machine]
    known = _on(caller.machine, roster.by_token(shown)) or _by_process(roster, caller, process)
    if known is None and proven:
        known = _unanswered(roster, caller, request, process, terms)
    if known is None and proven:
        present = [peer for peer in beside if peer.presence is Presence.PRESENT]
        first = identity.same_agent(request.keys, present)
        if first is not None and (process is None or first.process != process):
            return Registration(first, secrets.token_hex(32), changed=False, secondary=True)
        known = first or identity.predecessor(request.keys, beside)
    return _let_in(roster, caller, request, terms, _Found(known, process, proven))


@dataclass(frozen=True, slots=True)
class _Found:
    """Whom a newcomer was before, if anybody; its process; and whether its user wants this."""

    known: Peer | None
    process: Process | None
    proven: bool


def _unseen(request: RegisterRequest, known: Peer | None, terms: Terms) -> Process | None:
    """Return the process of a peer that comes back with its token and ends before it is looked at.

    Forgotten, it would be missed by its heartbeat alone, and its successor come too early.
    """
    same = known is not None and not known.machine and known.pid == request.pid
    return known.process if known and same and known.boot == terms.here.boot else None


def _let_in(
    roster: Roster, caller: Caller, request: RegisterRequest, terms: Terms, found: _Found
) -> Registration:
    """Return a newcomer as the peer that it is from now on."""
    here, at = terms.here, terms.at
    known, process, proven = found.known, found.process, found.proven
    shown = hash_token(request.token) if request.token else None
    token = request.token if known and known.token_hash == shown else None
    trust = access.trust_of(caller, process, required=terms.required or proven)
    if known is not None and known.trust is Trust.TOKEN:
        trust = Trust.TOKEN
    token = token or secrets.token_hex(32)
    peer_id = known.id if known else identity.mint(secrets.randbelow, roster.names())
    host = caller.machine or one_line(request.hostname or here.host, NAME)
    twin = _unproven_twin(roster, request.pid, host) if not known and trust is Trust.OPEN else None
    peer = Peer(
        id=peer_id,
        name=_free_name(roster, _wanted(request, known, peer_id), peer_id, leaving=twin),
        process=process or _unseen(request, known, terms),
        pid=request.pid,
        boot=here.boot,
        host=host,
        cwd=request.cwd[:PATH],
        git_root=request.git_root and request.git_root[:PATH],
        repo=request.repo and request.repo[:PATH],
        tty=request.tty and request.tty[:NAME],
        summary=request.summary[:SUMMARY] or (known.summary if known else ""),
        client=one_line(client_name(request.agent_type, request.client), NAME),
        route=one_line(request.route, NAME),
        trust=trust,
        token_hash=hash_token(token),
        keys=_keys(request, known) if proven else (),
        former=known.former if known else (),
        muted=known.muted if known else (),
        machine=caller.machine,
        shared=request.share == "full" or (terms.share and not caller.machine),
        profile=_profile(request, terms),
        registered_at=known.registered_at if known else at,
        last_seen=at,
    )
    changed = known is None or replace(known, last_seen=at) != peer
    return Registration(peer, token, changed, twin)


def _profile(request: RegisterRequest, terms: Terms) -> Profile:
    """Return what a peer tells about itself; our own clients tell `client`, agentmesh's do not."""
    told = (request.agent_type, request.agent_name, request.capabilities, request.fleet_id)
    return Profile(
        agentmesh=request.client is None and any(told),
        agent_name=one_line(request.agent_name or "", NAME),
        capabilities=words(request.capabilities),
        fleet_id=group(request.fleet_id) or terms.fleet_id,
        device_id=group(request.device_id),
        default_qos=granted(request.default_qos),
        default_ttl_ms=request.default_ttl_ms,
    )


def _is_proven(caller: Caller, request: RegisterRequest) -> bool:
    """Whether it is known that the user of the caller's machine wants this."""
    if caller.machine or caller.knows_secret:
        return True
    return request.proof is not None and caller.proves(request.proof)


def _on(machine: str, peer: Peer | None) -> Peer | None:
    """Return a peer if it is on this machine: its token means nothing on another."""
    return peer if peer is not None and peer.machine == machine else None


def _keys(request: RegisterRequest, known: Peer | None) -> tuple[str, ...]:
    """Return the keys of the request, then those that were observed before."""
    observed = known.keys if known else ()
    return tuple(dict.fromkeys((*request.keys, *observed)))[:KEYS]


def _process(request: RegisterRequest, here: Here) -> Process | None:
    """Return the process of a pid of this machine; another machine's says nothing here."""
    if request.pid is None or request.hostname not in (None, "", "localhost", here.host):
        return None
    return here.identify(request.pid)


def _by_process(roster: Roster, caller: Caller, process: Process | None) -> Peer | None:
    if process is None:
        return None
    for peer in roster.present():
        if peer.trust is Trust.PROCESS and peer.process == process and caller.owns(process):
            return peer
    return None


def _unanswered(
    roster: Roster,
    caller: Caller,
    request: RegisterRequest,
    process: Process | None,
    terms: Terms,
) -> Peer | None:
    """Return the calling process's peer if the answer to its registration was lost.

    That happens when the connection broke, or an earlier broker ended, between storing and
    answering: the process never learned its token, and nobody else can ever show it.
    """
    # These name the process that started it, so that one pid among its children is one process.
    started_by = [key for key in request.keys if key.startswith(("live:", "launch:"))]
    for peer in roster.present():
        if terms.linked(peer.id) or peer.machine != caller.machine or peer.pid is None:
            continue
        if peer.pid == request.pid and identity.shares_key(started_by, peer):
            return peer
        same = process is not None and peer.process == process and caller.owns(process)
        if same and roster.inherited(peer.id):
            return peer
    return None


def _unproven_twin(roster: Roster, pid: int | None, host: str) -> Peer | None:
    """Upstream replaces whoever has the same pid; here only one unproven peer another."""
    for other in roster.present():
        if pid is not None and (other.pid, other.trust, other.host) == (pid, Trust.OPEN, host):
            return other
    return None


def _wanted(request: RegisterRequest, known: Peer | None, peer_id: PeerId) -> str:
    if asked := request.name or request.agent_name:
        return identity.as_name(asked)
    if known is not None:
        return known.name
    folder = (request.git_root or request.cwd).replace("\\", "/").rstrip("/").rpartition("/")[2]
    return identity.as_name(folder) if folder else str(peer_id)


def _free_name(roster: Roster, wanted: str, peer_id: PeerId, *, leaving: Peer | None = None) -> str:
    without = {peer_id, leaving.id} if leaving else {peer_id}
    return identity.free_name(wanted, roster.names(without=without) - {peer_id})


def gone(peer: Peer, *, left: bool, at: str) -> Peer:
    """Return a peer that is not there any more, because it `left` or was found to be gone."""
    return replace(peer, presence=liveness.presence_after(peer, left=left), last_seen=at)


def come_back(roster: Roster, caller: Caller, peer_id: str) -> Peer | None:
    """Return a peer as present again if its own caller shows that it was only silent."""
    peer = roster.get(peer_id)
    if peer is None or peer.presence is not Presence.AWAY or peer.process is not None:
        return None
    if not _may_act(caller, peer):
        return None
    # Somebody may have taken its name meanwhile.
    name = _free_name(roster, peer.name, peer.id)
    return replace(peer, presence=Presence.PRESENT, name=name)


def _may_act(caller: Caller, peer: Peer) -> bool:
    try:
        access.check(caller, peer)
    except NotYourPeerError:
        return False
    return True
