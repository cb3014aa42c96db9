"""Whom a scope reaches, seen from where its sender is."""

import pytest

from claude_peers.core.audience import Place, of_scope, of_workspace
from claude_peers.core.errors import BadRequestError
from claude_peers.core.models import Peer, PeerId

REPO = {"git_root": "/src/app", "repo": "/src/app/.git"}
PEERS = [
    Peer(id=PeerId("1"), name="api-one", cwd="/src/app", **REPO),
    Peer(id=PeerId("2"), name="api-two", cwd="/src/app/web", **REPO),
    Peer(id=PeerId("3"), name="tree", cwd="/tmp/w", git_root="/tmp/w", repo="/src/app/.git"),
    Peer(id=PeerId("4"), name="other", cwd="/home/app"),
    Peer(id=PeerId("5"), name="api-far", cwd="/src/app", machine="mac", **REPO),
]
HERE = Place(cwd="/src/app", root="/src/app", repo="/src/app/.git")


@pytest.mark.parametrize(
    ("scope", "ids"),
    [
        ("@machine", "1234"),
        ("machine", "1234"),
        ("@repo", "123"),
        ("repo", "123"),
        ("@dir", "1"),
        ("directory", "1"),
        ("@api-*", "125"),
        ("@API-ONE", "1"),
        ("@?ther", "4"),
        ("@[ao]*", ""),
        ("@api-[ot]*", ""),
        ("@nobody", ""),
    ],
)
def test_a_scope_reaches_who_is_in_it(scope, ids):
    assert "".join(peer.id for peer in of_scope(scope, PEERS, HERE)) == ids


def test_a_machine_is_the_senders():
    assert [peer.id for peer in of_scope("@machine", PEERS, Place(machine="mac"))] == ["5"]


@pytest.mark.parametrize("scope", ["", "@", "fleet", "api-*"])
def test_a_word_that_is_no_scope_is_refused(scope):
    with pytest.raises(BadRequestError, match="@machine, @repo, @dir"):
        of_scope(scope, PEERS, HERE)


@pytest.mark.parametrize(("name", "ids"), [("app", "124"), ("/src/app", "12"), ("src", "")])
def test_a_workspace_is_a_work_tree_or_a_directory_by_its_name(name, ids):
    assert "".join(peer.id for peer in of_workspace(name, PEERS, HERE)) == ids
