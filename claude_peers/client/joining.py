"""Joins a broker on another machine by an invite.

The token is made here, and only its hash is told: so the broker's answer may be lost and the
join repeated, and the token itself first travels when it is used.
"""

import base64
import hashlib
import os
import time
from collections.abc import Callable
from typing import Any

import h11

from claude_peers.client.errors import checked
from claude_peers.client.exchange import Answer
from claude_peers.client.http import HEALTH_MOST
from claude_peers.client.joined import Joined
from claude_peers.client.remote import RemoteLink
from claude_peers.core.errors import BadRequestError, NoBrokerError
from claude_peers.wire.codec import dumps
from claude_peers.wire.invitation import Invitation

TOKEN = 32
"""Bytes of a machine's token."""
WITHIN = 5.0
"""Seconds for each of the broker's addresses."""
_PATH = "/join"


def join(invitation: Invitation, clock: Callable[[], float]) -> Joined:
    """Use an invite, at the first of its addresses where the broker answers.

    Raises:
        NoBrokerError: it answers nowhere, or is not the one that invited.
        RefusedError: it refuses the invite.
    """
    token = base64.urlsafe_b64encode(os.urandom(TOKEN)).rstrip(b"=").decode()
    failures: list[str] = []
    strange: NoBrokerError | None = None
    for address in invitation.addresses:
        here = Joined(address=address, pin=invitation.pin, token=invitation.code, clock=clock)
        try:
            told = _ask(here, {"code": invitation.code, "token_hash": _hash(token)})
        except NoBrokerError as error:  # on this network the address is somebody else's
            strange = error
            failures.append(error.fact)
            continue
        except (OSError, h11.RemoteProtocolError) as error:
            failures.append(f"{address}: {_why(error)}")
            continue
        return Joined(
            address=address, pin=invitation.pin, token=token, name=str(told["name"]), clock=clock
        )
    if strange is not None and len(failures) == 1:
        raise strange
    raise NoBrokerError(
        f"The broker could not be reached at {'; '.join(failures)}",
        "See that it runs, that its port is open to this machine, and that the invite names an "
        "address this machine can reach (`claude-peers invite NAME --address HOST:PORT`).",
    )


def _ask(here: Joined, asked: dict[str, Any]) -> dict[str, Any]:
    deadline = time.monotonic() + WITHIN
    link, body = RemoteLink(here, deadline=deadline), dumps(asked)
    try:
        headers = {
            "host": str(here.address),
            "content-type": "application/json",
            "content-length": str(len(body)),
            **link.signed("POST", _PATH, body),
        }
        request = h11.Request(method="POST", target=_PATH, headers=list(headers.items()))
        answer = link.exchange(request, body, deadline=deadline, most=HEALTH_MOST)
    finally:
        link.close()
    return _told(answer, here)


def _told(answer: Answer, here: Joined) -> dict[str, Any]:
    try:
        told = checked(_PATH, answer.status, answer.json())
    except BadRequestError:
        told = None
    if not isinstance(told, dict) or "name" not in told:
        raise NoBrokerError(
            f"The broker at {here.address} gave an answer that this version does not understand",
            "Use the same version of claude-peers on both machines.",
        )
    return told


def _hash(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()


def _why(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return "no answer"
    return getattr(error, "strerror", None) or str(error) or "it hung up"
