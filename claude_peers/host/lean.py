"""Keeps OpenSSL out of processes that have no use for it.

`asyncio` and `hashlib` load it for every program, though here a session's connections stay on this
machine and its digests are of a few bytes. It takes 1.2 MB of each process and a third of the time
that asyncio takes to load (`docs/decisions/0007-without-openssl.md`). Both modules work without,
as they must where Python was built so. Whoever does want it later imports `ssl` as ever.
"""

import importlib
import importlib.util
import sys

_OPENSSL = ("ssl", "_hashlib")
_DIGESTS = ("_md5", "_sha1", "_sha3", "_blake2")


def load_without_openssl(*names: str) -> None:
    """Import the named modules as if this Python had been built without OpenSSL.

    Where Python has no digests of its own, OpenSSL is loaded as ever.
    """
    digests = [*_DIGESTS, "_sha2" if sys.version_info >= (3, 12) else "_sha256"]
    hidden = [name for name in _OPENSSL if name not in sys.modules and all(map(_exists, digests))]
    sys.modules.update(dict.fromkeys(hidden))  # type: ignore[arg-type] # None: "do not look for it"
    try:
        for name in names:
            importlib.import_module(name)
    finally:
        for name in hidden:
            del sys.modules[name]


def _exists(name: str) -> bool:
    return importlib.util.find_spec(name) is not None
