"""Every store, each test in turn."""

import pytest

from claude_peers.stores import STORES
from claude_peers.stores.memory import MemoryStore
from claude_peers.stores.sqlite.store import SqliteStore


@pytest.fixture(params=STORES)
async def store(request, tmp_path):
    made = {"memory": MemoryStore, "sqlite": lambda: SqliteStore(str(tmp_path / "mail.db"))}
    async with made[request.param]() as opened:
        assert opened.name == request.param
        yield opened
        assert (await opened.ledger()).balanced
