"""The first stage of a session: the handshake is answered before anything large is loaded.

Loading an event loop takes longer than everything the handshake needs. So the first lines are
read and answered with bare system calls; what comes after them is left to the second stage.
"""

import json
import os
from typing import Any, NamedTuple

from claude_peers.session.handshake import early

_MOST = 1024 * 1024


class Early(NamedTuple):  # a dataclass takes 5 ms to load
    """What the first stage leaves behind.

    Attributes:
        rest: bytes that were read and not answered.
        params: of the `initialize` that was answered, None if there was none.
    """

    rest: bytes = b""
    params: dict[str, Any] | None = None


def greet(fd_in: int = 0, fd_out: int = 1) -> Early:
    """Answer probes and pings up to and including `initialize`."""
    buffer = b""
    while len(buffer) < _MOST:
        line, newline, rest = buffer.partition(b"\n")
        if not newline:
            chunk = _read(fd_in)
            if not chunk:
                break
            buffer += chunk
            continue
        message = _parse(line)
        answer = early(message) if message is not None else None
        if message is None or answer is None:
            break
        _write(fd_out, json.dumps(answer, ensure_ascii=False).encode() + b"\n")
        buffer = rest
        if message["method"] == "initialize":
            params = message.get("params")
            return Early(buffer, params if isinstance(params, dict) else {})
    return Early(buffer)


def _parse(line: bytes) -> dict[str, Any] | None:
    try:
        message = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return message if isinstance(message, dict) else None


def _read(fd: int) -> bytes:
    try:
        return os.read(fd, 65536)
    except OSError:  # closed or broken: the second stage finds out the same
        return b""


def _write(fd: int, line: bytes) -> None:
    try:
        while line:
            line = line[os.write(fd, line) :]
    except OSError:  # the client is gone: the second stage finds out the same
        return
