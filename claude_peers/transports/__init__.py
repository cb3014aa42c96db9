"""How a broker reaches a peer unasked: implementations of the Transport port."""
