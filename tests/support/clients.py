"""Clients in processes of their own, of this user or another, that speak as unmodified ones do."""

import json
import os
import subprocess
import sys

import pytest

LINUX = pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells who is calling")
ROOT = pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root can be another user"
)
NOBODY = 65534
CLIENT = """
import encodings.idna, http.client, json, os, socket, sys  # all, while they can be read
port, uid = int(sys.argv[1]), int(sys.argv[2])
if uid:
    os.setgroups([])
    os.setgid(uid)
    os.setuid(uid)
connection = http.client.HTTPConnection("127.0.0.1", port, timeout=15)
for line in sys.stdin:
    path, body, headers = json.loads(line)
    if path == "hit and run":
        one = socket.create_connection(("127.0.0.1", port))
        one.sendall(body.encode())
        one.close()
        print(json.dumps([0, None]), flush=True)
        continue
    headers = {"Content-Type": "application/json", **headers}
    method, raw = ("GET", None) if body is None else ("POST", json.dumps(body))
    connection.request(method, path, raw, headers)
    answer = connection.getresponse()
    print(json.dumps([answer.status, json.loads(answer.read())]), flush=True)
"""


class Client:
    """A process of its own that speaks as unmodified clients do."""

    def __init__(self, port, uid=0):
        self.process = subprocess.Popen(
            [sys.executable, "-c", CLIENT, str(port), str(uid)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.pid = self.process.pid

    def ask(self, path, body=None, **headers):
        """POST, or GET without a body; return status and JSON."""
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        self.process.stdin.write(json.dumps([path, body, given]) + "\n")
        self.process.stdin.flush()
        return tuple(json.loads(self.process.stdout.readline()))

    def register(self, **more):
        body = {"pid": self.pid, "cwd": "/w", "git_root": None, "tty": None, "summary": "mine"}
        return self.ask("/register", body | more)[1]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.communicate()
