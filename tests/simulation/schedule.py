"""One schedule: a few sessions, the faults that the seed draws, and the time to recover."""

import asyncio
from collections.abc import Callable
from typing import Any

from simulation.agents import PORT, Program, Session
from simulation.book import Book
from simulation.disk import Disk
from simulation.network import Listener, Network
from simulation.world import World

from claude_peers.host import leading

LEADS_WITHIN = 30.0
"""Seconds after the last fault in which somebody must lead."""
DELIVERED_WITHIN = 150.0
"""Seconds after the last fault in which all that was accepted must have been seen."""
ENDS_WITHIN = 5.0
LOCK = f"/home/user/peers.d/{leading.LOCK}"
CLOCK_RANGE = 250.0
"""How far the wall clock steps to either side: a dedupe key is known for 600 s of it."""


class Schedule:
    """Runs one seed.

    Args:
        seed: of everything that happens.
        mutation: what is broken on purpose.
    """

    def __init__(self, seed: int, mutation: str = "") -> None:
        self.world = World(seed, mutation)
        self.world.network = Network(self.world)
        self.world.disk = Disk(self.world)
        self.book = Book(self.world)
        self.programs: list[Program] = []
        self.recovered = 0.0
        self._strangers: list[Listener] = []
        self._lasts = 0.0  # seconds a fault needs to show
        self._healing = self._over = False
        count = self.world.rng.choice((2, 3, 3, 4))
        self._names = [f"agent-{number}" for number in range(count)]
        faults = (
            (4, self._kill_leader),
            (3, self._kill_soon),
            (2, self._kill_any),
            (3, self._stop_process),
            (1, self._hang),
            (3, self._sever),
            (2, self._delete_lock),
            (2, self._usurp),
            (2, self._stranger),
            (2, self._step_clock),
            (3, self._fail_commits),
            (1, self._new_node),
            (3, self._end_leader),
            (1, self._end_any),
        )
        self._faults = [fault for weight, fault in faults for _ in range(weight)]

    @property
    def violations(self) -> list[str]:
        return self.world.violations

    def run(self) -> "Schedule":
        """Run it to its end."""
        self.world.run(self._run())
        return self

    async def _run(self) -> None:
        rng = self.world.rng
        for name in self._names:
            self._start_session(name)
            await asyncio.sleep(rng.choice((0.0, 0.001, 0.5)))
        await asyncio.sleep(rng.random())
        for _ in range(rng.randint(2, 6)):
            fault = rng.choice(self._faults)
            self.world.note(0, fault.__name__.strip("_"))
            fault()
            await asyncio.sleep(self._lasts or rng.choice((0.0, 0.02, 0.5, 3.0)) * rng.random())
            self._lasts = 0.0
        await self._recover()
        self.book.close()
        self._over = True
        await self._end_all()

    # After the faults

    def _heal(self) -> None:
        self._healing = True
        self.world.note(0, "the faults end")
        self.world.disk.fails = 0
        for stranger in self._strangers:
            stranger.close()
        for program in self.programs:
            program.process.fuse = -1
            for why in list(program.process.stopped):
                program.process.go_on(why)
            if isinstance(program, Session):
                program.quiet = True
            elif program.port != PORT:
                self._ask_to_end(program)

    async def _recover(self) -> None:
        self._heal()
        since = self.world.loop.now
        while not self._is_led():
            if self.world.loop.now - since > LEADS_WITHIN:
                self.world.violated(f"nobody leads after {LEADS_WITHIN:g} s")
                break
            await asyncio.sleep(0.05)
        while not self._is_whole():
            if self.world.loop.now - since > DELIVERED_WITHIN:
                self.world.violated(
                    f"after {DELIVERED_WITHIN:g} s {self.book.undelivered()} are not delivered, "
                    f"attached: {[each.attached for each in self._sessions()]}"
                )
                break
            await asyncio.sleep(0.25)
            for name in self._names:  # in the place of who was killed, or has ended by now
                self._start_session(name)
        self.recovered = self.world.loop.now - since

    def _is_led(self) -> bool:
        return sum(program.leads for program in self.programs) == 1

    def _is_whole(self) -> bool:
        sessions = self._sessions()
        return (
            self._is_led()
            and len(sessions) == len(self._names)
            and all(each.attached and each.content for each in sessions)
            and not self.book.undelivered()
        )

    async def _end_all(self) -> None:
        for program in self.programs:
            if program.alive:
                program.process.spawn(program.end())
        since = self.world.loop.now
        while any(program.alive for program in self.programs):
            if self.world.loop.now - since > ENDS_WITHIN:
                alive = [each.process.pid for each in self.programs if each.alive]
                self.world.violated(f"{alive} do not end")
                return
            await asyncio.sleep(0.05)

    # Programs

    def _sessions(self) -> list[Session]:
        return [each for each in self.programs if isinstance(each, Session) and each.alive]

    def _start_session(self, name: str) -> None:
        if not self._over and name not in [each.name for each in self._sessions()]:
            session = Session(self.world, self.book, name, self._names)
            session.quiet = self._healing
            self.programs.append(session)

    def _restart(self, program: Program) -> None:
        if isinstance(program, Session):
            self._later((0.5, 2.0), lambda: self._start_session(program.name))

    def _later(self, within: tuple[float, float], what: Callable[[], Any]) -> None:
        seconds = self.world.rng.uniform(*within)
        self.world.loop.call_later(seconds, what, context=self.world.kernel.context)

    def _leader(self) -> Program | None:
        leaders = [each for each in self.programs if each.leads]
        return self.world.rng.choice(leaders) if leaders else None

    def _any(self) -> Program | None:
        """Return a process; not a session that no broker has let in yet.

        Ended before its first registration is read, it leaves a peer of which nothing tells whose
        process it was: that is missed by its heartbeat, and its successor is somebody new until
        then.
        """
        running = [
            each
            for each in self.programs
            if each.alive and (not isinstance(each, Session) or each.known)
        ]
        return self.world.rng.choice(running) if running else None

    # Faults

    def _kill(self, program: Program | None) -> None:
        if program is not None and program.alive:
            program.process.kill()
            self._restart(program)

    def _kill_leader(self) -> None:
        self._kill(self._leader())

    def _kill_any(self) -> None:
        self._kill(self._any())

    def _kill_soon(self) -> None:
        """Kill a process, mostly the leader, at one of its next await points."""
        program = self._leader() if self.world.rng.random() < 0.7 else self._any()
        if program is not None:
            program.process.blown = lambda: self._kill(program)
            program.process.fuse = self.world.rng.randrange(1, 120)

    def _stop_process(self) -> None:
        """SIGSTOP; SIGCONT comes from this test, or earlier from a follower."""
        program = self._leader() if self.world.rng.random() < 0.7 else self._any()
        if program is not None:
            program.process.stop()
            self._later(self.world.rng.choice(((0, 0.2), (1, 5), (8, 20))), program.process.go_on)

    def _hang(self) -> None:
        """Let the leader's event loop hang, but not its threads."""
        program = self._leader()
        if program is not None:
            process, long = program.process, self.world.rng.random() < 0.5
            process.stop("hang")
            self._lasts = 18.0 if long else 0.0
            self._later((18, 25) if long else (0, 2), lambda: process.go_on("hang"))

    def _sever(self) -> None:
        """Break connections of sessions; a loopback does not lose the answer to `/register`."""
        pids = [each.process.pid for each in self._sessions() if each.attached]
        ends = [e for e in self.world.network.ends if e.dialled and e.owner.pid in pids]
        for end in self.world.rng.sample(ends, min(len(ends), self.world.rng.randint(1, 3))):
            end.sever()

    def _delete_lock(self) -> None:
        """Delete the lock file under whoever holds it."""
        self.world.disk.lock_deleted = True
        self.world.files.pop(LOCK, None)

    def _usurp(self) -> None:
        """Delete the lock file, and start a node that serves on another port."""
        if self.world.rng.random() < 0.7:
            self._delete_lock()
        self.programs.append(Program(self.world, port=PORT + 1))

    def _stranger(self) -> None:
        """Kill the leader, and let somebody else have its port for a while."""
        leader = self._leader()
        if leader is None or leader.port != PORT:
            return
        self._kill(leader)
        manner = self.world.rng.choice(("hangs up", "nonsense", "silent"))
        stranger = self.world.network.occupy(PORT, manner)
        if stranger is not None:
            self._strangers.append(stranger)
            self._later((0.05, 4.0), stranger.close)

    def _step_clock(self) -> None:
        self.world.stepped = self.world.rng.uniform(-CLOCK_RANGE, CLOCK_RANGE)

    def _fail_commits(self) -> None:
        self.world.disk.fails = self.world.rng.randint(1, 4)

    def _new_node(self) -> None:
        self.programs.append(Program(self.world))

    def _ask_to_end(self, program: Program | None) -> None:
        if program is not None and program.alive:
            program.process.spawn(program.end())
            self._restart(program)

    def _end_leader(self) -> None:
        self._ask_to_end(self._leader())

    def _end_any(self) -> None:
        self._ask_to_end(self._any())
