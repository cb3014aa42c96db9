"""How a call under way tells its client how far it is."""

from typing import Any

from claude_peers.session.handshake import usable_id
from claude_peers.session.rpc import WRITE
from claude_peers.tools.registry import Progress
from claude_peers.wire.codec import dumps


def reporter(meta: dict[str, Any]) -> Progress:
    """Return what a tool reports to; it says nothing to a client that did not ask.

    Args:
        meta: the `_meta` of the request under way.
    """
    token = meta.get("progressToken")
    return _Reporter(token if usable_id(token) else None)


class _Reporter:
    """Writes notifications, one at a time: a client that does not read gets no pile of them."""

    def __init__(self, token: Any) -> None:
        self._token = token
        self._write = WRITE.get()
        self._writing = False

    async def __call__(self, done: float, total: float, message: str) -> None:
        """See `tools.registry.Progress`."""
        if self._token is None or self._writing:
            return
        self._writing = True
        params = {"progressToken": self._token, "progress": done, "total": total}
        notification = {
            "jsonrpc": "2.0",
            "method": "notifications/progress",
            "params": {**params, "message": message},
        }
        self._write(dumps(notification), self._written)

    def _written(self, _whole: bool) -> None:  # noqa: FBT001 - the callback's one argument
        self._writing = False
