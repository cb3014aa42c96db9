"""Simulated processes on one event loop whose time is virtual.

Every callback belongs to the process in whose context it was scheduled. The loop runs one
process's ready callbacks, then another's, chosen by the seed; when nobody is ready, time jumps to
the next timer. So a process can be stopped and go on (its callbacks wait), or be killed between
any two of its callbacks (they never run, and no `finally` either), as by a real signal.
"""

import asyncio
import contextlib
import contextvars
import heapq
import random
from collections import deque
from collections.abc import Callable
from typing import Any

PROCESS: contextvars.ContextVar["Process"] = contextvars.ContextVar("process")
NOON = 1_700_000_000.0
"""Where the wall clock begins."""
LONGEST = 4000
"""Handles of one schedule at one moment; more would be a loop without end."""


def current() -> "Process":
    """Return the process whose code is running."""
    return PROCESS.get()


class Process:
    """One process, or one thread beside the event loop of its `main` one.

    Attributes:
        stopped: reasons for which it does not run now.
        fuse: callbacks after which `blown` is called; negative is never.
        closers: what the system does when it ends.
    """

    def __init__(self, world: "World", pid: int, *, main: "Process | None" = None) -> None:
        self.world = world
        self.pid = pid
        self.alive = True
        self.main = main or self
        self.threads: list[Process] = []
        self.stopped: set[str] = set()
        self.ready: deque[asyncio.Handle] = deque()
        self.fuse = -1
        self.blown: Callable[[], None] = lambda: None
        self.closers: list[Callable[[], None]] = []
        self.context = contextvars.copy_context()
        self.context.run(PROCESS.set, self)
        if main is not None:
            main.threads.append(self)
        world.processes.append(self)

    def thread(self) -> "Process":
        """Start a thread, which a hanging event loop does not stop."""
        return Process(self.world, self.pid, main=self)

    def end(self) -> None:
        """Let a thread come to its end."""
        if self.alive:
            self.alive = False
            self.world.processes.remove(self)
            self.main.threads.remove(self)

    def stop(self, why: str = "SIGSTOP") -> None:
        """Let it run no further; its threads only go on if just the event loop hangs."""
        self.world.note(self.pid, why)
        for each in (self, *self.threads) if why == "SIGSTOP" else (self,):
            each.stopped.add(why)

    def go_on(self, why: str = "SIGSTOP") -> None:
        """Let it run again."""
        self.world.note(self.pid, f"after {why}")
        for each in (self, *self.threads):
            each.stopped.discard(why)

    def kill(self, why: str = "SIGKILL") -> None:
        """End it between two callbacks; the system closes what it had open."""
        if not self.alive:
            return
        self.world.note(self.pid, why)
        for each in (self, *self.threads):
            each.alive = False
            each.stopped.clear()
            self.world.graves.append(each.ready)
            each.ready = deque()
            self.world.processes.remove(each)
        for close in self.closers:
            close()

    def spawn(self, work: Any) -> asyncio.Task[Any]:
        """Run a coroutine in it."""
        return self.world.loop.create_task(work, context=self.context)

    def soon(self, call: Callable[..., Any], *arguments: Any) -> None:
        """Call something in it."""
        self.world.loop.call_soon(call, *arguments, context=self.context)


class World:
    """Time, chance and processes of one schedule.

    Attributes:
        rng: the one source of chance, of faults as of what the product draws.
        trace: what happened, as (time, pid, what), in order.
        violations: what should never have happened.
        mutation: what is broken on purpose, to see that it is noticed.
        files, network, disk: the machine (`machine`, `network`, `disk`).
    """

    def __init__(self, seed: int, mutation: str = "") -> None:
        self.seed = seed
        self.rng = random.Random(seed)
        self.processes: list[Process] = []
        self.graves: list[Any] = []
        self.trace: list[tuple[float, int, str]] = []
        self.violations: list[str] = []
        self.stepped = 0.0
        self.pids = 100
        self.numbered = 0
        self.mutation = mutation
        self.files: dict[str, Any] = {}
        self.network: Any
        self.disk: Any
        self.loop = Loop(self)
        self.kernel = Process(self, 0)

    def start(self) -> Process:
        """Start a process; pids are never used again."""
        self.pids += 1
        return Process(self, self.pids)

    def wall(self) -> float:
        """Return seconds since the epoch, as somebody may have set them."""
        return NOON + self.stepped + self.loop.now

    def find(self, pid: int) -> Process | None:
        """Return the running process of a pid."""
        return next((p for p in self.processes if p.pid == pid and p.main is p), None)

    def note(self, pid: int, what: str) -> None:
        """Add to the trace."""
        self.trace.append((self.loop.now, pid, what))

    def violated(self, what: str) -> None:
        """Note that something is not as it must be."""
        self.note(0, f"VIOLATION {what}")
        self.violations.append(what)

    def story(self) -> str:
        """Return the trace as lines."""
        return "\n".join(f"{now:11.6f} {pid:4d} {what}" for now, pid, what in self.trace)

    def run(self, work: Any) -> None:
        """Run a coroutine of the kernel to its end, then bury everything."""
        try:
            self.kernel.context.copy().run(self.loop.run_until_complete, work)
        finally:
            self.kernel.context.copy().run(self.loop.run_until_complete, self.loop.bury())
            self.loop.close()


class Loop(asyncio.BaseEventLoop):
    """Runs the processes; never sleeps, and touches no socket."""

    def __init__(self, world: World) -> None:
        super().__init__()
        self.now = 0.0
        self.world = world
        self.tasks: list[asyncio.Task[Any]] = []
        self.connect: Callable[..., Any]
        self.serve: Callable[..., Any]
        self._timers: list[tuple[float, int, asyncio.TimerHandle, Process]] = []
        self._count = 0
        self.burying = False
        self.set_exception_handler(self._failed)

    def time(self) -> float:
        return self.now

    def call_soon(self, callback, *args, context=None) -> asyncio.Handle:
        context = contextvars.copy_context() if context is None else context
        handle = asyncio.Handle(callback, args, self, context)
        owner = context[PROCESS]
        if owner.alive and not (self.burying and owner is not self.world.kernel):
            owner.ready.append(handle)
        return handle

    def call_soon_threadsafe(self, callback, *args, context=None) -> asyncio.Handle:
        return self.call_soon(callback, *args, context=context or current().main.context)

    def call_at(self, when, callback, *args, context=None) -> asyncio.TimerHandle:
        context = contextvars.copy_context() if context is None else context
        timer = asyncio.TimerHandle(when, callback, args, self, context)
        self._count += 1
        heapq.heappush(self._timers, (when, self._count, timer, context[PROCESS]))
        return timer

    def create_task(self, coro, *, name=None, context=None) -> asyncio.Task[Any]:
        # Kept, so that no task of a killed process is ever collected, and runs its `finally`.
        task = asyncio.Task(coro, loop=self, name=name, context=context)
        self.tasks.append(task)
        return task

    def run_in_executor(self, executor, func, *args) -> asyncio.Future[Any]:
        future = self.create_future()

        def work() -> None:
            if not future.done():
                try:
                    future.set_result(func(*args))
                except Exception as error:  # noqa: BLE001 - what a thread raises is its caller's
                    future.set_exception(error)

        self.call_later(self.world.rng.uniform(0.0005, 0.01), work)
        return future

    async def create_connection(self, protocol_factory, host=None, port=None, **more):
        return await self.connect(protocol_factory, port)

    async def create_server(self, protocol_factory, host=None, port=None, *, sock=None, **more):
        return self.serve(protocol_factory, sock)

    def remove_reader(self, fd) -> bool:
        return True

    def _timer_handle_cancelled(self, handle) -> None:
        pass

    def _run_once(self) -> None:
        world, steps = self.world, 0
        while not self._stopping:
            runnable = [each for each in world.processes if each.ready and not each.stopped]
            if not runnable:
                self._advance()
                steps = 0
                continue
            steps += 1
            if steps > LONGEST:
                raise RuntimeError(f"seed {world.seed}: time does not go on\n{world.story()}")
            process = runnable[0] if len(runnable) == 1 else world.rng.choice(runnable)
            self._run_process(process)

    def _run_process(self, process: Process) -> None:
        ready = process.ready
        for _ in range(len(ready)):
            if process.stopped or not process.alive:
                return
            handle = ready.popleft()
            if not handle._cancelled:
                handle._run()
                if process.fuse >= 0:
                    self._burn(process)

    def _burn(self, process: Process) -> None:
        process.fuse -= 1
        if process.fuse < 0:
            process.blown()

    def _advance(self) -> None:
        timers = self._timers
        while timers and timers[0][2]._cancelled:
            heapq.heappop(timers)
        if not timers:
            raise RuntimeError(f"seed {self.world.seed}: nothing will ever happen again")
        self.now = max(self.now, timers[0][0])
        while timers and timers[0][0] <= self.now:
            _, _, timer, owner = heapq.heappop(timers)
            if owner.alive and not timer._cancelled:
                owner.ready.append(timer)

    async def bury(self) -> None:
        """Close what still waits somewhere, so that nothing is collected at another time."""
        self.burying = True
        for task in self.tasks:  # closing may make more
            if not task.done() and task is not asyncio.current_task():
                task._log_destroy_pending = False
                for _ in range(8):
                    with contextlib.suppress(RuntimeError, asyncio.CancelledError):
                        task.get_coro().close()
                        break
        self._timers.clear()

    def _failed(self, loop, facts) -> None:
        if "handle" in facts and not self.burying:
            self.world.violated(f"{facts['message']}: {facts.get('exception')!r}")
