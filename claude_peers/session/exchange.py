"""One message to the SDK and its answer, as an ASGI application takes and gives them."""

import asyncio
from collections.abc import Mapping
from typing import Any


class Exchange:
    """See the module.

    Args:
        headers: of the request it came with, by lower-case name.
        message: JSON.

    Attributes:
        status, content_type, body: the answer.
    """

    def __init__(self, headers: Mapping[str, str], message: bytes) -> None:
        self.status = 500
        self.content_type = "application/json"
        self.body = bytearray()
        self.scope = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": "POST",
            "scheme": "http",
            "path": "/mcp",
            "query_string": b"",
            "headers": [(n.encode(), v.encode("latin-1")) for n, v in headers.items()],
        }
        self._message = message
        self._asked = False

    async def receive(self) -> dict[str, Any]:
        """Give the message, all at once; a caller that leaves is somebody else's matter."""
        if self._asked:
            await asyncio.get_running_loop().create_future()
        self._asked = True
        return {"type": "http.request", "body": self._message, "more_body": False}

    async def send(self, event: Mapping[str, Any]) -> None:
        """Take a part of the answer."""
        if event["type"] == "http.response.start":
            self.status = event["status"]
            headers = dict(event.get("headers", ()))
            self.content_type = headers.get(b"content-type", b"application/json").decode()
        else:
            self.body += event.get("body", b"")
