"""What a store promises about other machines and about where peers are."""

from dataclasses import replace

import pytest
from support.brokers import LEADER

from claude_peers.core.errors import FencedError
from claude_peers.core.machines import Machine
from claude_peers.core.models import Peer, PeerId, Trust
from claude_peers.stores.sqlite.store import SqliteStore

pytestmark = pytest.mark.anyio

INVITED = Machine(name="mac", code_hash="c", expires_at=1.5, invited_at="then")
JOINED = replace(INVITED, token_hash="t", joined_at="later")


async def test_there_are_no_machines_at_first(store):
    assert await store.machines() == []


async def test_a_machine_is_kept_as_it_was_saved_last(store):
    await store.save_machine(Machine(name="vm", revoked_at="now"))
    await store.save_machine(INVITED)
    await store.save_machine(JOINED)
    assert await store.machines() == [JOINED, Machine(name="vm", revoked_at="now")]


async def test_a_peer_is_kept_with_the_machine_it_is_on(store):
    peer = Peer(id=PeerId("a"), name="a", machine="mac", shared=True, trust=Trust.REMOTE)
    await store.save_peer(peer)
    assert await store.peers() == [peer]


async def test_machines_survive_a_take_over_and_fence_the_earlier_leader(tmp_path):
    path = str(tmp_path / "mail.db")
    async with SqliteStore(path) as first, SqliteStore(path) as second:
        await first.take_office(LEADER, now=0.0)
        await first.save_machine(JOINED)
        await second.take_office(LEADER, now=0.0)
        assert await second.machines() == [JOINED]
        with pytest.raises(FencedError):
            await first.save_machine(INVITED)
        assert await second.machines() == [JOINED]
