"""One running process: it elects, assembles and serves."""
