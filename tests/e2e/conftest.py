"""What tests with a real Claude Code need."""

from collections.abc import Callable, Iterator

import pytest
from e2e.desk import Desk
from e2e.stub_api import Model
from support.machine import Machine


@pytest.fixture
def sit_down(machine: Machine) -> Iterator[Callable[..., Desk]]:
    """Return what makes a desk with server and hooks installed."""
    desks: list[Desk] = []

    def sit_down(model: Model | None = None, *, hooks: bool = True, **environ: str) -> Desk:
        desk = Desk(machine, model, **environ)
        desks.append(desk)
        desk.install(hooks=hooks)
        return desk

    yield sit_down
    for desk in desks:
        desk.close()
