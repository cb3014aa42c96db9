"""The rules: what may happen, decided without clock, network, disk or randomness."""
