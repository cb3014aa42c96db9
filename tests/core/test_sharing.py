"""What crosses from machine to machine of what a peer tells about itself."""

from dataclasses import asdict, replace

import pytest

from claude_peers.core.models import Peer, PeerId, Process
from claude_peers.core.sharing import as_seen_from

ANN = Peer(
    id=PeerId("ann00000"),
    name="ann",
    process=Process(pid=7, started="1"),
    pid=7,
    host="mac",
    cwd="/home/ann/code/parser/src",
    git_root="/home/ann/code/parser",
    repo="/home/ann/code/parser/.git",
    tty="pts/3",
    summary="parsing",
    machine="mac",
)


@pytest.mark.parametrize("peer", [ANN, replace(ANN, machine="")])
def test_on_its_own_machine_all_of_it_is_seen(peer):
    assert as_seen_from(peer, peer.machine) is peer


def test_on_another_machine_what_is_shared_on_purpose_is_seen():
    peer = replace(ANN, shared=True)
    assert as_seen_from(peer, "") is peer


@pytest.mark.parametrize("machine", ["", "other"])
@pytest.mark.threat("T31")
def test_elsewhere_paths_terminal_and_process_are_left_out(machine):
    seen = as_seen_from(ANN, machine)
    assert seen == replace(
        ANN, process=None, pid=None, cwd="parser", git_root=None, repo=None, tty=None
    )
    assert not [value for value in asdict(seen).values() if isinstance(value, str) and "/" in value]


@pytest.mark.parametrize(
    ("root", "cwd", "shown"),
    [
        (None, "/home/ann/notes", "notes"),
        (None, "/home/ann/notes/", "notes"),
        (None, "C:\\Users\\ann\\notes", "notes"),
        (None, "", ""),
        (None, "/", ""),
        ("/srv/app", "/srv/app/deep/down", "app"),
    ],
)
def test_of_a_directory_the_last_part_is_seen(root, cwd, shown):
    assert as_seen_from(replace(ANN, git_root=root, cwd=cwd), "").cwd == shown
