"""A home of their own for nodes that run inside the test's process."""

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import anyio
import pytest
from support.loop import until
from support.machine import free_port

from claude_peers import settings
from claude_peers.client.client import Client
from claude_peers.core.election import Role
from claude_peers.core.errors import ClaudePeersError
from claude_peers.node.node import Node
from claude_peers.settings import Settings

BOUND = 15
Choose = Callable[..., Settings]


@pytest.fixture
def choose(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Choose:
    """Return a way to make settings in a scratch home; None takes a variable away."""
    monkeypatch.setenv("HOME", str(tmp_path))
    port = free_port()

    def make(**given: str | None) -> Settings:
        environ = {
            "HOME": str(tmp_path),
            "CLAUDE_PEERS_DB": str(tmp_path / "peers.db"),
            "CLAUDE_PEERS_PORT": str(port),
            **given,
        }
        return settings.load({name: value for name, value in environ.items() if value is not None})

    return make


@pytest.fixture
def database(tmp_path: Path) -> Path:
    """Return where the database of the chosen settings is."""
    return tmp_path / "peers.db"


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """Return where lock, secret and the like lie."""
    return tmp_path / "peers.d"


@pytest.fixture
def chosen(choose: Choose) -> Settings:
    """Return settings in a scratch home."""
    return choose()


class Participant:
    """A node, its client, and the roles it had."""

    def __init__(self, settings: Settings, *, agent: bool = True, pid: int = 0) -> None:
        self.client = Client(lambda: registration(settings, pid)) if agent else None
        self.node = Node(settings, self.client)
        self.roles: list[Role] = []
        self._changed = asyncio.Event()
        self.node.changed = self._note
        self.running = asyncio.ensure_future(self.node.run())

    async def becomes(self, role: Role) -> None:
        """Wait for a role that has not been waited for."""
        with anyio.fail_after(BOUND):
            while role not in self.roles:
                self._changed.clear()
                await self._changed.wait()
        del self.roles[: self.roles.index(role) + 1]

    async def ask(self, operation: str, **body: Any) -> Any:
        assert self.client is not None
        return await self.client.call(operation, body)

    async def trouble(self) -> ClaudePeersError:
        """Wait until the node says why it has no broker."""
        await until(lambda: self.node.problem)
        assert self.node.problem is not None
        return self.node.problem

    async def end(self) -> None:
        if self.node.role is not Role.STOPPED:
            await self.node.stop()
        with anyio.fail_after(BOUND):
            await self.running

    def _note(self, role: Role) -> None:
        self.roles.append(role)
        self._changed.set()


def registration(settings: Settings, pid: int) -> dict[str, Any]:
    return {"pid": pid or os.getpid(), "cwd": os.path.dirname(settings.database_path), "name": "x"}


@pytest.fixture
async def join(chosen: Settings) -> AsyncIterator[Callable[..., Participant]]:
    """Return a way to make members; all are stopped at the end."""
    made: list[Participant] = []

    def make(settings: Settings = chosen, **given: Any) -> Participant:
        made.append(Participant(settings, **given))
        return made[-1]

    yield make
    for each in made:
        await each.end()
