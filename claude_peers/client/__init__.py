"""Anyone's way to a broker."""
