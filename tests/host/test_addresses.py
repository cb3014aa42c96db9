"""Where others may reach this machine."""

import socket
import sys

import pytest

from claude_peers.host import addresses, linux, portable

TABLE = b"""Main:
  +-- 0.0.0.0/0 3 0 5
     |-- 0.0.0.0
        /0 universe UNICAST
     +-- 127.0.0.0/8 2 0 2
        |-- 127.0.0.1
           /32 host LOCAL
     +-- 10.9.0.0/16 2 0 2
        |-- 10.9.0.0
           /16 link UNICAST
        |-- 10.9.0.2
           /32 host LOCAL
        |-- 10.10.0.2
           /32 host LOCAL
        |-- 10.9.255.255
           /32 link BROADCAST
Local:
     |-- 10.9.0.2
        /32 host LOCAL
"""


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere psutil tells")
@pytest.mark.parametrize(
    ("table", "found"), [(TABLE, ["10.9.0.2", "10.10.0.2"]), (b"", []), (None, [])]
)
def test_its_own_addresses_are_found_in_the_kernels_table(monkeypatch, table, found):
    monkeypatch.setattr(linux, "read", lambda _path: table)
    assert addresses.own() == found


def test_every_address_can_be_bound_and_is_the_one_psutil_knows():
    found = addresses.own()
    assert set(found) == {a for a in portable.addresses() if not a.startswith("127.")}
    for address in found:
        socket.create_server((address, 0)).close()
