"""The addresses of this machine, at which others may reach it."""

import sys

from claude_peers.host import linux


def own() -> list[str]:
    """Return its IPv4 addresses, in the order of their numbers; loopback is none of them."""
    if sys.platform == "linux":
        table = linux.read("/proc/net/fib_trie") or b""
        found = set(_locals(table.decode("ascii", "replace")))
    else:  # pragma: no cover - macOS and Windows; the backend is tested by itself
        from claude_peers.host import portable

        found = portable.addresses()
    return sorted((each for each in found if not each.startswith("127.")), key=_number)


def _locals(table: str) -> list[str]:
    """Return what the kernel's routing table calls local: the line before says which address."""
    found, latest = [], ""
    for line in table.splitlines():
        words = line.split()
        if words[0] == "|--":
            latest = words[1]
        elif words[0] == "/32" and words[-1] == "LOCAL":
            found.append(latest)
    return found


def _number(address: str) -> list[int]:
    return [int(part) for part in address.split(".")]
