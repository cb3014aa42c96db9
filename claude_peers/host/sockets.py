"""Who is at the other end of a loopback connection, as the system knows it.

Linux tells any user the owner of any socket: the kernel is asked for exactly one, in some 15
microseconds (NETLINK_SOCK_DIAG), and only where it does not answer are its tables read, which
takes milliseconds. Two answers must not be believed: a socket without an inode has no owner any
more and is shown as root's, and a look-up that finds no connection may return who listens on
that port instead. Elsewhere the owner of a connection is unknown.
"""

import os
import socket
import struct
import sys
from dataclasses import dataclass

_Address = tuple[str, int]
_LINUX = sys.platform == "linux"
_ANY = "0.0.0.0"  # noqa: S104 - looked up, never bound
_NOBODY = (_ANY, 0)
"""The remote address of a listening socket."""

# linux/netlink.h, linux/sock_diag.h, linux/inet_diag.h
_NETLINK_SOCK_DIAG = 4
_SOCK_DIAG_BY_FAMILY = 20
_NLM_F_REQUEST = 1
_INET_DIAG_NOCOOKIE = b"\xff" * 8
_REPLY = 88
"""Bytes of an answer: netlink header 16, inet_diag_msg 72."""


@dataclass(frozen=True, slots=True)
class SocketOwner:
    """The user a socket belongs to, and the number by which its processes hold it."""

    uid: int
    inode: int


def owner(peer: _Address, me: _Address) -> SocketOwner | None:
    """Return who owns the socket at `peer` that is connected to ours at `me`.

    None if that is not known: not Linux, already closed, or not on this machine.
    """
    if not _LINUX:
        return None
    try:
        found = _diagnose(peer, me)
        # Our own end is there, so a kernel that cannot find it either has no such service.
        if found is None and _diagnose(me, peer) is None:
            found = _look_up(peer, me)
    except OSError:
        found = _look_up(peer, me)
    return found


def holds(pid: int, inode: int) -> bool:
    """Whether `pid` has the socket `inode` open; False if we may not look."""
    folder = f"/proc/{pid}/fd"
    try:
        names = os.listdir(folder)
    except OSError:
        return False
    return any(_target(f"{folder}/{name}") == f"socket:[{inode}]" for name in names)


def listener_uid(port: int) -> int | None:
    """Return whose process a connection to 127.0.0.1:`port` would reach, None if unknown."""
    if not _LINUX:
        from claude_peers.host import portable

        return next((uid for _, uid in portable.listeners(port)), None)
    found = _listener(port)
    return None if found is None else found.uid


def listener_pids(port: int) -> list[int]:
    """Return the pids that listen on `port`, as far as we may see; for messages."""
    if not _LINUX:
        from claude_peers.host import portable

        return [pid for pid, _ in portable.listeners(port)]
    found = _listener(port)
    if found is None:
        return []
    pids = [int(name) for name in os.listdir("/proc") if name.isdecimal()]
    return sorted(pid for pid in pids if holds(pid, found.inode))


def _listener(port: int) -> SocketOwner | None:
    """Return who listens on `port` for 127.0.0.1, by the kernel's own choice if it tells."""
    local = ("127.0.0.1", port)
    try:
        found = _diagnose(local, _NOBODY)
    except OSError:
        found = None
    found = found or _look_up(local, _NOBODY) or _look_up((_ANY, port), _NOBODY)
    return found or _look_up(("::", port), ("::", 0))


def _diagnose(local: _Address, remote: _Address) -> SocketOwner | None:
    """Ask the kernel for one socket; a remote address of `_NOBODY` means a listener.

    Raises:
        OSError: the kernel does not take such questions from us.
    """
    identity = (
        struct.pack(">HH", local[1], remote[1])
        + socket.inet_aton(local[0]) + bytes(12)
        + socket.inet_aton(remote[0]) + bytes(12)
        + bytes(4) + _INET_DIAG_NOCOOKIE
    )  # fmt: skip
    header = struct.pack("=IHHII", 72, _SOCK_DIAG_BY_FAMILY, _NLM_F_REQUEST, 1, 0)
    request = struct.pack("=BBBBI", socket.AF_INET, socket.IPPROTO_TCP, 0, 0, 0xFFFFFFFF)
    with socket.socket(socket.AF_NETLINK, socket.SOCK_DGRAM, _NETLINK_SOCK_DIAG) as kernel:
        kernel.send(header + request + identity)
        answer = kernel.recv(8192, socket.MSG_DONTWAIT)  # it has answered before send returned
    return _read_answer(answer, identity[:4])


def _read_answer(answer: bytes, ports: bytes) -> SocketOwner | None:
    """Return the owner in an answer, if it is about the socket with these `ports`."""
    if len(answer) < _REPLY or struct.unpack_from("=H", answer, 4)[0] != _SOCK_DIAG_BY_FAMILY:
        return None
    uid, inode = struct.unpack_from("=II", answer, 80)
    return SocketOwner(uid, inode) if inode and answer[20:24] == ports else None


def _look_up(local: _Address, remote: _Address) -> SocketOwner | None:
    """Find one socket in the kernel's tables; a remote address of `_NOBODY` means a listener."""
    from claude_peers.host import linux

    table = linux.read("/proc/net/tcp6" if ":" in local[0] else "/proc/net/tcp") or b""
    return _find(table.decode("ascii", "replace"), local, remote)


def _find(table: str, local: _Address, remote: _Address) -> SocketOwner | None:
    wanted = [_hexadecimal(local), _hexadecimal(remote)]
    for line in table.splitlines():
        fields = line.split()
        if fields[1:3] == wanted and int(fields[9]):
            return SocketOwner(int(fields[7]), int(fields[9]))
    return None


def _hexadecimal(address: _Address) -> str:
    """Return an address as the tables print it: 32-bit words in the machine's byte order."""
    family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
    packed = socket.inet_pton(family, address[0])
    words = struct.unpack(f"={len(packed) // 4}I", packed)
    return "".join(f"{word:08X}" for word in words) + f":{address[1]:04X}"


def _target(link: str) -> str:
    try:
        return os.readlink(link)
    except OSError:  # closed in the meantime
        return ""
