"""Facts about this machine: processes, sockets, files and repositories."""
