"""Whatever a test does to a broker, no message may be missing afterwards."""

from collections.abc import Iterator
from typing import Any

import pytest

from claude_peers.stores.memory import MemoryStore


@pytest.fixture(autouse=True)
def accounted_for(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Fail a test in whose stores accepted is not the sum of the states and what was purged."""
    made: list[MemoryStore] = []
    begin = MemoryStore.__init__

    def noted(store: MemoryStore, *given: Any) -> None:
        begin(store, *given)
        made.append(store)

    with monkeypatch.context() as watched:
        watched.setattr(MemoryStore, "__init__", noted)
        yield
    for store in made:
        counting = store.ledger()
        with pytest.raises(StopIteration) as counted:  # it waits for nothing, so needs no loop
            counting.send(None)
        assert counted.value.value.balanced, counted.value.value
