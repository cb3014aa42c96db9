"""The broker against a model, on both stores: nothing lost, nothing twice unannounced, in order.

The model knows every message's state. Each step does something to the broker and to the model;
after each step the ledger, every mailbox, every hand-out and every push must be what the model
says.
"""

import random
import shutil
import tempfile
from pathlib import Path

import pytest
from broker.mesh import Mesh
from broker.model import DELIVERIES
from hypothesis import HealthCheck, seed, settings, stateful
from hypothesis import strategies as st
from hypothesis.internal.conjecture import engine

from claude_peers.broker import broker as broker_module
from claude_peers.stores.memory import MemoryStore
from claude_peers.stores.sqlite.store import SqliteStore

STEPS = 500


class MeshInMemory(Mesh):
    """On the reference store; its end is the end of the object, so it is kept."""

    async def opened(self):
        return self.store or MemoryStore(DELIVERIES)

    async def killed(self):
        return self.store


class MeshOnSqlite(Mesh):
    """On a file: closed and opened again, or opened as the disk has it while it is still open."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.file = Path(self.folder.name) / "mail.db"

    async def opened(self):
        return await SqliteStore(str(self.file), deliveries=DELIVERIES).__aenter__()

    async def killed(self):
        left, self.file = self.file, self.file.with_name(f"{self.file.stem}-.db")
        for suffix in ("", "-wal"):
            shutil.copy(f"{left}{suffix}", f"{self.file}{suffix}")
        return await self.opened()

    def teardown(self) -> None:
        super().teardown()
        self.folder.cleanup()


@pytest.fixture
def number(request) -> int:
    """Return the seed of this run, and print how to have the same run again."""
    given = request.config.getoption("--hypothesis-seed")
    drawn = random.randrange(1 << 32) if given is None else int(given)
    print(f"the same run again: pytest {request.node.nodeid} --hypothesis-seed={drawn}")
    return drawn


class Everything:
    """A choice of rules that leaves none out."""

    def is_enabled(self, _rule: str) -> bool:
        return True


@pytest.fixture
def long_examples(monkeypatch) -> None:
    """Let each example be long, and every other one be of all rules.

    Hypothesis limits what an example may draw, which would end it before its last step, and leaves
    out rules: half of them, or all but one. That finds much in many short examples only.
    """
    for module in (engine, stateful):
        monkeypatch.setattr(module, "BUFFER_SIZE", 64 * STEPS)
    some = stateful.FeatureStrategy
    monkeypatch.setattr(
        stateful, "FeatureStrategy", lambda **rules: st.just(Everything()) | some(**rules)
    )


@pytest.mark.usefixtures("long_examples")
@pytest.mark.timeout(900)  # a failure is made small before it is told
@pytest.mark.parametrize(
    ("machine", "examples"), [(MeshInMemory, 12), (MeshOnSqlite, 6)], ids=["memory", "sqlite"]
)
def test_the_broker_does_what_the_model_says(machine, examples, number, monkeypatch):
    monkeypatch.setattr(broker_module, "DYING", 3600.0)
    lengths = []

    class Counted(machine):
        def teardown(self):
            lengths.append(self.steps)
            super().teardown()

    stateful.run_state_machine_as_test(
        seed(number)(Counted),
        settings=settings(
            max_examples=examples,
            stateful_step_count=STEPS,
            deadline=None,
            print_blob=True,
            suppress_health_check=list(HealthCheck),
        ),
    )
    assert lengths.count(STEPS) > examples // 2, lengths  # some end before they begin
