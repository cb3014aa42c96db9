"""Fixtures every folder of tests may use."""

import functools
import os
from collections.abc import Callable, Generator, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from support import figures
from support.machine import Machine

# How fast examples are made is the machine's matter: on a fresh checkout the first takes seconds.
settings.register_profile("anywhere", suppress_health_check=[HealthCheck.too_slow], deadline=None)
settings.load_profile("anywhere")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Show what the processes of a scratch machine wrote when a test on it fails."""
    report = yield
    scratch = getattr(item, "funcargs", {}).get("machine")
    if report.failed and isinstance(scratch, Machine):
        report.sections += scratch.logs()
    return report


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def tell(request: pytest.FixtureRequest) -> Callable[[str], None]:
    """Print what a test counted; see `support.figures`."""
    return functools.partial(figures.tell, request.node.nodeid)


@pytest.fixture
def unmeasured(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let coverage, which loads a lot, not measure the processes that a test starts."""
    for name in list(os.environ):
        if name.startswith("COVERAGE_"):
            monkeypatch.delenv(name)


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    """Return a scratch machine; at the end nothing of it may be left running."""
    scratch = Machine(tmp_path / "machine")
    try:
        yield scratch
    finally:
        scratch.close()
