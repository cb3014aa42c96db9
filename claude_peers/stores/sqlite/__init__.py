"""The embedded default: one SQLite file, one connection, one thread."""
