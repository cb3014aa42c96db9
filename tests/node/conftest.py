"""A home of their own for nodes that run inside the test's process."""

from collections.abc import Callable
from pathlib import Path

import pytest
from support.machine import free_port

from claude_peers import settings
from claude_peers.settings import Settings

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
def chosen(choose: Choose) -> Settings:
    """Return settings in a scratch home."""
    return choose()
