"""How a broker reaches a peer unasked: implementations of the Transport port.

A new one is one module here and a line in this list.
"""

TRANSPORTS = ("live", "webhooks")
