"""Implementations of the Store port.

`memory` is the reference for tests, `sqlite` the embedded default. A new one is one module here,
a line in this list, and `tests/contract/test_stores.py` holds it to the port's promises.
"""

STORES = ("memory", "sqlite")
