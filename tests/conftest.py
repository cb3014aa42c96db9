"""Fixtures every folder of tests may use."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from support.machine import Machine


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    """Return a scratch machine; at the end nothing of it may be left running."""
    scratch = Machine(tmp_path / "machine")
    try:
        yield scratch
    finally:
        scratch.close()
