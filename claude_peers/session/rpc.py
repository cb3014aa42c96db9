"""JSON-RPC 2.0 without I/O: a line comes in, calls run side by side, answers go out.

1. Every request gets exactly one answer, unless the client cancelled it: then none.
2. What is known at once is answered at once, in order; the rest runs as tasks, so that a call
   that waits holds up nobody.
3. A `Reply` learns what became of its line: True only if every byte reached the system and
   the call was not cancelled before that. A `late` one learns of a cancellation after that, too.
4. A client that asks without reading must not fill the memory: answers count as work until
   they are written, and `paused` tells the reader to stop.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final

from claude_peers.core.errors import BadRequestError, ClaudePeersError
from claude_peers.session.handshake import METHOD_NOT_FOUND, usable_id
from claude_peers.session.late import Key, Late, spellings
from claude_peers.session.lines import LONGEST
from claude_peers.wire.codec import dumps, loads

PARSE_ERROR: Final = -32700
INVALID_REQUEST: Final = -32600
INVALID_PARAMS: Final = -32602
INTERNAL_ERROR: Final = -32603
MOST: Final = 256
"""Requests under way, and answers not yet written, after which the reader should pause."""

logger = logging.getLogger(__name__)


class MethodError(Exception):
    """A request that is answered with a JSON-RPC error."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True, slots=True)
class Reply:
    """A result that wants to know whether the client got it.

    Attributes:
        result: the JSON.
        written: called once.
        late: whether it is called with False as well if the call is cancelled after that.
    """

    result: dict[str, Any]
    written: Callable[[bool], None]
    late: bool = False


Result = dict[str, Any] | Reply
Handler = Callable[[dict[str, Any]], Result | Awaitable[Result]]
Listener = Callable[[dict[str, Any]], None]
Write = Callable[[bytes, Callable[[bool], None] | None], object]

WRITE: ContextVar[Write] = ContextVar("write", default=lambda _line, _written: None)
"""Writes to the client whose request is under way, for what is not the answer."""


@dataclass(slots=True, eq=False)
class _Line:
    """The answers to one line from the client, which leave together."""

    batch: bool
    open: int = 0
    answers: list[dict[str, Any]] = field(default_factory=list)
    calls: list["_Call"] = field(default_factory=list)


@dataclass(slots=True, eq=False)
class _Call:
    """One request under way."""

    id: Key
    line: _Line
    task: asyncio.Future[Result] | None = None
    cancelled: bool = False
    written: Callable[[bool], None] | None = None
    late: bool = False


def failure(error: BaseException) -> dict[str, Any]:
    """Return the JSON-RPC error for what a method raised; call it where the error is caught."""
    match error:
        case MethodError():
            return {"code": error.code, "message": str(error)}
        case ClaudePeersError():
            return {"code": INVALID_PARAMS, "message": str(error)}
        case _:
            logger.error("a method failed", exc_info=error)
            return {"code": INTERNAL_ERROR, "message": "Internal error"}


def refusal(code: int, message: str, request_id: Key | None = None) -> dict[str, Any]:
    """Return an error response."""
    return {"jsonrpc": "2.0", "id": request_id, "error": {"code": code, "message": message}}


def oversized(request_id: Key | None) -> dict[str, Any]:
    """Return the answer to a line that was too long to be read."""
    remedy = "Put the long part in a file and send its path."
    code = PARSE_ERROR if request_id is None else INVALID_PARAMS
    return refusal(code, f"The line has more than {LONGEST} bytes. {remedy}", request_id)


class Dispatcher:
    """One client's conversation.

    Args:
        methods: what answers requests.
        notifications: what listens to notifications.
        write: takes a line without its end, and who wants to know what became of it.
        batches: whether the version in use has arrays of messages.
        resume: called when `paused` ends.
    """

    def __init__(
        self,
        methods: Mapping[str, Handler],
        notifications: Mapping[str, Listener],
        *,
        write: Write,
        batches: Callable[[], bool] = lambda: False,
        resume: Callable[[], None] = lambda: None,
    ) -> None:
        self._methods = methods
        self._notifications = notifications
        self._write = write
        self._batches = batches
        self._resume = resume
        self._running: dict[Key, _Call] = {}
        self._writing: dict[Key, _Call] = {}
        self._late = Late()
        self._unwritten = 0
        self._closed = False

    @property
    def paused(self) -> bool:
        """Whether the reader should stop for now."""
        return len(self._running) + self._unwritten >= MOST

    def feed(self, line: bytes) -> None:
        """Take one line; never raises, whatever is in it."""
        if not (line := line.strip()):
            return
        answers = _Line(batch=False)
        try:
            message = loads(line)
        except BadRequestError:
            answers.answers.append(refusal(PARSE_ERROR, "Parse error"))
            self._leave(answers)
            return
        if not isinstance(message, list):
            self._take(message, answers)
        elif message and self._batches():
            answers = _Line(batch=True, open=1)
            for each in message:
                self._take(each, answers)
            answers.open -= 1
        else:
            answers.answers.append(refusal(INVALID_REQUEST, "Invalid request: an array"))
        self._leave(answers)

    async def close(self, grace: float = 0.0) -> None:
        """Let calls end for up to `grace` seconds, then cancel them; they get no answer."""
        tasks = [call.task for call in self._running.values() if call.task is not None]
        if tasks and grace:
            await asyncio.wait(tasks, timeout=grace)
        self._closed = True
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _take(self, message: Any, line: _Line) -> None:
        match message:
            case {"jsonrpc": "2.0", "method": str(method), "id": request_id}:
                self._request(method, message.get("params"), request_id, line)
            case {"jsonrpc": "2.0", "method": str(method)}:
                self._notice(method, message.get("params"))
            case {"jsonrpc": "2.0", "id": _, "result": _} | {"jsonrpc": "2.0", "error": _}:
                pass  # an answer to a request of ours; we make none
            case _:
                line.answers.append(refusal(INVALID_REQUEST, "Invalid request"))

    def _notice(self, method: str, params: Any) -> None:
        given = params if isinstance(params, dict) else {}
        if method == "notifications/cancelled":
            self._cancel(given.get("requestId"))
        elif listener := self._notifications.get(method):
            try:
                listener(given)
            except Exception:
                logger.exception("the listener to %s failed", method)

    def _request(self, method: str, params: Any, request_id: Any, line: _Line) -> None:
        if not usable_id(request_id):
            line.answers.append(refusal(INVALID_REQUEST, "Invalid request: the id"))
            return
        call = _Call(request_id, line)
        WRITE.set(self._write)  # the request's task begins with a copy of this context
        try:
            result = self._handler(method, params, call)(params or {})
        except Exception as error:  # noqa: BLE001 - the border: whatever a method raises is an answer
            line.answers.append({"jsonrpc": "2.0", "id": request_id, "error": failure(error)})
            return
        if isinstance(result, (dict, Reply)):
            self._answer(call, result)
            return
        line.open += 1
        self._running[request_id] = call
        call.task = asyncio.ensure_future(result)
        call.task.add_done_callback(partial(self._ended, call))

    def _handler(self, method: str, params: Any, call: _Call) -> Handler:
        if call.id in self._running:
            raise MethodError(INVALID_REQUEST, f"Request {call.id} is still under way")
        if method not in self._methods:
            raise MethodError(METHOD_NOT_FOUND, "Method not found")
        if params is not None and not isinstance(params, dict):
            raise MethodError(INVALID_PARAMS, "The params must be an object")
        return self._methods[method]

    def _ended(self, call: _Call, task: asyncio.Future[Result]) -> None:
        del self._running[call.id]
        call.line.open -= 1
        if task.cancelled():
            if not (call.cancelled or self._closed):
                # Something it waited for was cancelled, not the call: the client must not hang.
                self._fail(call, RuntimeError(f"request {call.id} waited for something cancelled"))
        elif (error := task.exception()) is not None:
            self._fail(call, error)
        else:
            self._answer(call, task.result())
        self._leave(call.line)
        self._relieve()

    def _answer(self, call: _Call, result: Result) -> None:
        if isinstance(result, Reply):
            if call.cancelled:
                result.written(False)  # noqa: FBT003 - the callback's one argument
                return
            call.written, call.late = result.written, result.late
            call.line.calls.append(call)
            self._writing[call.id] = call
            result = result.result
        if not call.cancelled:
            call.line.answers.append({"jsonrpc": "2.0", "id": call.id, "result": result})

    def _fail(self, call: _Call, error: BaseException) -> None:
        if not call.cancelled:
            call.line.answers.append({"jsonrpc": "2.0", "id": call.id, "error": failure(error)})

    def _leave(self, line: _Line) -> None:
        """Write the line's answers if all are there."""
        if line.open or not line.answers:
            return
        self._unwritten += 1
        self._write(
            dumps(line.answers if line.batch else line.answers[0]), partial(self._done, line.calls)
        )

    def _done(self, calls: list[_Call], whole: bool) -> None:  # noqa: FBT001 - the callback's one argument
        self._unwritten -= 1
        for call in calls:
            if self._writing.get(call.id) is call:
                del self._writing[call.id]
            if call.written is not None:
                call.written(arrived := whole and not call.cancelled)
                if arrived and call.late:
                    self._late.keep(call.id, call.written)
        self._relieve()

    def _relieve(self) -> None:
        if len(self._running) + self._unwritten == MOST - 1:
            self._resume()

    def _cancel(self, request_id: Any) -> None:
        for key in spellings(request_id):
            self._late.take_back(key)
            if call := self._writing.get(key):
                call.cancelled = True
            if call := self._running.get(key):
                call.cancelled = True
                if call.task is not None:
                    call.task.cancel()
