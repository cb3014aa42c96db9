"""The same methods on the official MCP SDK of either generation, behind the dispatcher's interface.

Lines and their fate stay ours (`session.stdio`); the SDK gets streams in memory. It validates
what comes in and what goes out against each protocol version, which makes it the measure for
our own dispatcher.

SDK 2 is driven by `serve_loop`: `Server.run` lets Claude Code's `server/discover` probe choose a
protocol without handshake, in which channels are lost.
"""

import asyncio
import inspect
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Self

from claude_peers.core.errors import BadRequestError
from claude_peers.session.generations import ProtocolError, Sdk, load
from claude_peers.session.handshake import usable_id
from claude_peers.session.late import Key, Late, spellings
from claude_peers.session.methods import Methods
from claude_peers.session.rpc import (
    INVALID_REQUEST,
    MOST,
    PARSE_ERROR,
    WRITE,
    Handler,
    Reply,
    Write,
    failure,
    refusal,
)
from claude_peers.wire.codec import dumps, loads


@dataclass(slots=True, eq=False)
class _Fate:
    """What becomes of one request's answer."""

    cancelled: bool = False
    written: Callable[[bool], None] | None = None
    late: bool = False


class Face:
    """One client's conversation, held by the SDK.

    Args:
        methods: what answers.
        write: takes a line without its end, and who wants to know what became of it.
        resume: called when `paused` may have ended.
    """

    def __init__(
        self, methods: Methods, *, write: Write, resume: Callable[[], None] = lambda: None
    ) -> None:
        self._methods = methods
        self._write = write
        self._resume = resume
        self._lines: asyncio.Queue[bytes | None] = asyncio.Queue()
        self._fates: dict[Key, _Fate] = {}
        self._late = Late()
        self._idle = asyncio.Event()

    @property
    def paused(self) -> bool:
        """Whether the reader should stop for now."""
        return self._lines.qsize() + self._open() >= MOST

    def feed(self, line: bytes) -> None:
        """Take one line; those that come before the SDK is loaded wait."""
        if line := line.strip():
            self._lines.put_nowait(line)

    async def serve(self) -> None:
        """Load the SDK and answer until `close`.

        Raises:
            SettingsError: the SDK is not installed.
        """
        sdk = await asyncio.to_thread(load)
        try:
            await sdk.serve(self._methods, self._answer, _Source(self, sdk), _Sink(self, sdk))
        finally:
            for key, fate in [*self._fates.items()]:
                self._done(key, fate, whole=False)

    async def close(self, grace: float = 0.0) -> None:
        """Let calls end for up to `grace` seconds, then end `serve`."""
        if grace and (self._lines.qsize() or self._open()):
            self._idle.clear()
            with suppress(TimeoutError):
                await asyncio.wait_for(self._idle.wait(), grace)
        self._lines.put_nowait(None)

    async def next_message(self, sdk: Sdk) -> Any:
        """Return the next message for the SDK, None at the end."""
        while (line := await self._lines.get()) is not None:
            self._resume()
            try:
                given = loads(line)
                message = sdk.parse(dumps(given))
            except BadRequestError:
                self._write(dumps(refusal(PARSE_ERROR, "Parse error")), None)
            except ValueError:
                self._write(dumps(refusal(INVALID_REQUEST, "Invalid request")), None)
            else:
                self._observe(given)
                return message
        return None

    def send(self, answer: dict[str, Any]) -> None:
        """Write what the SDK sends, unless it answers a cancelled request."""
        key: Any = answer.get("id")
        fate = self._fates.get(key) if usable_id(key) else None
        if fate is None:
            self._write(dumps(answer), None)
        elif fate.cancelled:
            self._done(key, fate, whole=False)
        else:
            self._write(dumps(answer), lambda whole: self._done(key, fate, whole=whole))

    def _open(self) -> int:
        return sum(not fate.cancelled for fate in self._fates.values())

    def _observe(self, message: dict[str, Any]) -> None:
        """Take note of what the SDK does not tell us."""
        match message:
            case {"method": "notifications/cancelled", "params": {"requestId": key}}:
                for each in spellings(key):
                    self._late.take_back(each)
                if usable_id(key) and (fate := self._fates.get(key)):
                    fate.cancelled = True
            case {"method": str(method), "id": key}:
                self._fates[key] = _Fate()
                if method == "initialize" and isinstance(message.get("params"), dict):
                    self._methods.greet(message["params"])
            case _:
                pass

    async def _answer(
        self, handler: Handler, params: Mapping[str, Any], key: Key
    ) -> dict[str, Any]:
        fate = self._fates.setdefault(key, _Fate())
        WRITE.set(self._write)
        try:
            result = handler(dict(params))
            if inspect.isawaitable(result):
                result = await result
        except asyncio.CancelledError:
            self._done(key, fate, whole=False)
            raise
        except Exception as error:
            raise ProtocolError(failure(error)) from error
        if isinstance(result, Reply):
            fate.written, fate.late, result = result.written, result.late, result.result
        if fate.cancelled:  # and the tool did not let itself be stopped
            from anyio.lowlevel import checkpoint

            self._done(key, fate, whole=False)
            await checkpoint()  # raises: the SDK's first generation would answer a second time
        return result

    def _done(self, key: Key, fate: _Fate, *, whole: bool) -> None:
        if self._fates.get(key) is fate:
            del self._fates[key]
        written, fate.written = fate.written, None
        if written is not None:
            written(arrived := whole and not fate.cancelled)
            if arrived and fate.late:
                self._late.keep(key, written)
        if not self._open():
            self._idle.set()
        self._resume()


class _Stream:
    """What the SDK expects of both ends of a stream."""

    def __init__(self, face: Face, sdk: Sdk) -> None:
        self._face = face
        self._sdk = sdk

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Do nothing: the descriptors are not the SDK's."""


class _Source(_Stream):
    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Any:
        message = await self._face.next_message(self._sdk)
        if message is None:
            raise StopAsyncIteration
        return message


class _Sink(_Stream):
    async def send(self, message: Any) -> None:
        """Take one of the SDK's messages."""
        self._face.send(self._sdk.unparse(message))
