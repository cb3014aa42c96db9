"""A broker raises its limit of open files as far as it may, and never lowers it."""

from types import SimpleNamespace

import pytest

from claude_peers.host import open_files

INFINITY = -1


@pytest.fixture
def limited(monkeypatch):
    """Return a way to have limits, which returns what they become."""

    def have(soft: int, hard: int) -> tuple[int, int]:
        limits = [(soft, hard)]
        fake = SimpleNamespace(
            RLIMIT_NOFILE="files",
            RLIM_INFINITY=INFINITY,
            getrlimit=lambda _which: limits[-1],
            setrlimit=lambda _which, given: limits.append(given),
        )
        monkeypatch.setattr(open_files, "resource", fake)
        open_files.allow_more()
        return limits[-1]

    return have


@pytest.mark.parametrize(
    ("before", "after"),
    [
        pytest.param((1024, 1048576), (8192, 1048576), id="linux"),
        pytest.param((256, INFINITY), (8192, INFINITY), id="macos"),
        pytest.param((256, 4096), (4096, 4096), id="as far as it may"),
        pytest.param((40, 40), (40, 40), id="no further"),
        pytest.param((16384, INFINITY), (16384, INFINITY), id="never less"),
        pytest.param((INFINITY, INFINITY), (INFINITY, INFINITY), id="without a limit"),
    ],
)
def test_the_limit_is_raised_as_far_as_is_of_use(limited, before, after):
    assert limited(*before) == after
    assert open_files.most() == (after[0] if after[0] != INFINITY else 1 << 20)


def test_where_there_is_no_such_limit_nothing_happens(monkeypatch):
    monkeypatch.setattr(open_files, "resource", None)
    open_files.allow_more()
    assert open_files.most() == 1 << 20
