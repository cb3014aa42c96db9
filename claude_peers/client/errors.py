"""A broker's refusal, as it arrives at a client."""

from typing import Any

from claude_peers.core.errors import ClaudePeersError

NOT_LEADER = "not_leader"
"""Code of the answer that means: ask the next broker."""
_UNKNOWN = (404, {"error": "not found"})  # claude-peers-mcp broker.ts; ours says more


class RefusedError(ClaudePeersError):
    """The broker said no; code, fact and remedy are its own.

    Attributes:
        status: the HTTP status.
        body: the whole answer.
    """

    def __init__(self, operation: str, status: int, body: Any) -> None:
        told = body if isinstance(body, dict) else {}
        fact = str(told.get("error", f"The broker answered {status} to {operation}"))
        wait = told.get("retry_after")
        super().__init__(
            fact,
            str(told.get("remedy", "Look at the broker's log.")),
            retry_after=float(wait) if isinstance(wait, (int, float)) else None,
        )
        # The code is the broker's, not this class's.
        vars(self)["code"] = str(told.get("code", "refused"))
        self.status = status
        self.body = told


class NotOfferedError(RefusedError):
    """The broker is another implementation's and does not have what was asked for.

    Args:
        what: an operation, or what it lacks in a word.
    """

    def __init__(self, what: str) -> None:
        told = {
            "error": f"The broker is another implementation's: it knows no {what}",
            "remedy": "End it where it was started; then the next session of claude-peers leads.",
            "code": "not_offered",
        }
        super().__init__(what, 404, told)


def checked(operation: str, status: int, body: Any) -> Any:
    """Return an answer's body.

    Raises:
        NotOfferedError: another implementation's broker does not know the operation.
        RefusedError: it is a refusal, by status or by `"ok": false`.
    """
    if (status, body) == _UNKNOWN:
        raise NotOfferedError(operation)
    if status != 200 or (isinstance(body, dict) and body.get("ok") is False):  # noqa: PLR2004 - HTTP's OK
        raise RefusedError(operation, status, body)
    return body
