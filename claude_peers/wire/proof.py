"""How broker and client of one user prove themselves to each other.

Both know a secret file that only this user can read. A client sends a nonce; the broker answers
with an HMAC over it and its epoch, and with a challenge of its own; a client that has to prove
itself answers that. Nothing secret travels, and a recorded answer fits no other connection.
"""

import hmac

NONCE_HEADER = "x-claude-peers-nonce"
PROOF_HEADER = "x-claude-peers-proof"
CHALLENGE_HEADER = "x-claude-peers-challenge"
AUTH_HEADER = "x-claude-peers-auth"


def broker_proof(secret: bytes, nonce: str, epoch: int) -> str:
    """Return the header value by which a broker proves itself: epoch and HMAC."""
    return f"{epoch} {_mac(secret, 'broker', nonce, str(epoch))}"


def proven_epoch(secret: bytes, nonce: str, proof: str) -> int | None:
    """Return the epoch of a broker whose proof holds, else None."""
    epoch = proof.partition(" ")[0]
    if not epoch.isdecimal() or len(epoch) > 15:  # noqa: PLR2004 - digits of a sane counter
        return None
    return int(epoch) if same(broker_proof(secret, nonce, int(epoch)), proof) else None


def client_proof(secret: bytes, challenge: str) -> str:
    """Return what a client answers to a broker's challenge."""
    return _mac(secret, "client", challenge)


def same(expected: str, given: str) -> bool:
    """Compare without telling by the time it takes."""
    return hmac.compare_digest(expected.encode(), given.encode("utf-8", "replace"))


def _mac(secret: bytes, *parts: str) -> str:
    return hmac.new(secret, "\n".join(parts).encode("utf-8", "replace"), "sha256").hexdigest()
