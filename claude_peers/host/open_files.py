"""How many files and sockets this process may have open at a time.

The usual limits of 256 (macOS) and 1,024 (Linux) are low for the sake of programs that use
`select`; any program may raise its own, up to what the administrator allows.
"""

from importlib import import_module
from typing import Any

try:
    resource: Any = import_module("resource")
except ImportError:  # pragma: no cover - Windows has no such limit
    resource = None

ENOUGH = 8192
"""As many as a broker has use for; macOS allows 10,240."""
_WITHOUT_LIMIT = 1 << 20


def most() -> int:
    """Return how many this process may have open."""
    if resource is None:
        return _WITHOUT_LIMIT
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return _WITHOUT_LIMIT if soft == resource.RLIM_INFINITY else int(soft)


def allow_more() -> None:
    """Raise this process's own limit to `ENOUGH`, or as far as it may."""
    if resource is None or most() >= ENOUGH:
        return
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = ENOUGH if hard == resource.RLIM_INFINITY else min(ENOUGH, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
