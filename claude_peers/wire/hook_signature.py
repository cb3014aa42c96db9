"""The signature that GitHub puts on a post to a hook: HMAC-SHA256 of the body, as it is sent.

It is `sha256=` and 64 hexadecimal digits in `X-Hub-Signature-256`; Gitea and Forgejo send the same.
The SHA-1 of `X-Hub-Signature`, which comes with it for old receivers, is not looked at.
"""

import hashlib
import hmac
from typing import Final

HEADER: Final = "X-Hub-Signature-256"


def sign(secret: str, body: bytes) -> str:
    """Return the value of the header for a body."""
    return f"sha256={hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()}"


def verify(secret: str, body: bytes, signature: str) -> bool:
    """Whether a signature is this body's; takes the same time wherever it differs."""
    given = signature.encode("utf-8", "replace")
    return hmac.compare_digest(sign(secret, body).encode(), given)
