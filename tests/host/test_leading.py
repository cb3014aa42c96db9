"""The leader's port is recorded for whoever looks on another, and believed only while it leads."""

import socket
from pathlib import Path

import pytest
from filelock import FileLock
from support.machine import Machine

from claude_peers.host import files, leading

pytestmark = [pytest.mark.processes, pytest.mark.xdist_group("processes")]


def state_of(machine: Machine) -> str:
    return str(machine.database).removesuffix(".db") + ".d"


def test_who_leads_the_same_port_is_no_obstacle(machine: Machine):
    machine.serve()
    folder = state_of(machine)

    assert leading.elsewhere(folder, machine.port) is None
    assert leading.elsewhere(folder, machine.port + 1) == machine.port


def test_a_record_is_believed_while_somebody_leads_and_somebody_listens(tmp_path: Path):
    folder = str(tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        leading.note_port(folder, port)
        files.private_file(str(tmp_path / leading.LOCK))
        assert leading.elsewhere(folder, port + 1) is None  # its leader has ended
        with FileLock(tmp_path / leading.LOCK, thread_local=False):
            assert leading.elsewhere(folder, port + 1) == port
            listener.close()
            assert leading.elsewhere(folder, port + 1) is None  # the next one serves soon


def test_the_record_is_private_and_written_only_when_it_changes(tmp_path: Path):
    record = tmp_path / "broker.port"
    leading.note_port(str(tmp_path), 7001)
    before = record.stat()
    leading.note_port(str(tmp_path), 7001)
    assert record.stat().st_ino == before.st_ino
    leading.note_port(str(tmp_path), 7002)

    assert record.read_bytes() == b"7002"
    assert record.stat().st_mode & 0o777 == 0o600
