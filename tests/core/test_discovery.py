"""Which peers a scope shows, and which one a target means."""

import pytest

from claude_peers.core.discovery import resolve, visible
from claude_peers.core.errors import AmbiguousPeerError, PeerNotFoundError
from claude_peers.core.models import Peer, PeerId, Presence


def peer(peer_id: str, name: str = "", **fields) -> Peer:
    return Peer(id=PeerId(peer_id), name=name or f"name-{peer_id}", **fields)


TREE = peer("tree", cwd="/r", git_root="/r", repo="/r/.git")
DEEP = peer("deep", cwd="/r/src", git_root="/r", repo="/r/.git")
TWIN = peer("twin", cwd="/w", git_root="/w", repo="/r/.git")
BARE = peer("bare", cwd="/b")
ALL = [TREE, DEEP, TWIN, BARE]


def shown(scope: str, *, cwd=None, root=None, repo=None) -> list[str]:
    return [each.id for each in visible(ALL, scope, cwd=cwd, root=root, repo=repo)]


@pytest.mark.parametrize("scope", ["machine", "", "galaxy"])
def test_the_machine_and_any_unknown_scope_show_everybody(scope):
    assert shown(scope, cwd="/r") == ["tree", "deep", "twin", "bare"]


def test_a_directory_shows_who_works_in_it_and_not_below():
    assert shown("directory", cwd="/r", root="/r") == ["tree"]


@pytest.mark.parametrize("nowhere", [None, ""])
def test_a_caller_without_a_directory_sees_nobody_in_it(nowhere):
    lost = [peer("lost", git_root="", repo=""), peer("stray", git_root="/s", repo="")]
    for scope in ("directory", "repo"):
        assert visible(lost, scope, cwd=nowhere, root=nowhere, repo=nowhere) == []
    assert visible(lost, "repo", cwd="/r", root="/r", repo=nowhere) == []


def test_a_repository_shows_who_works_anywhere_in_its_tree():
    assert shown("repo", cwd="/r", root="/r") == ["tree", "deep"]


@pytest.mark.bug("U14")
def test_a_repository_shows_the_work_trees_that_share_it():
    assert shown("repo", cwd="/w", root="/w", repo="/r/.git") == ["tree", "deep", "twin"]


@pytest.mark.parametrize("root", [None, ""])
def test_outside_a_repository_the_scope_repo_means_the_directory(root):
    assert shown("repo", cwd="/b", root=root) == ["bare"]


def test_peers_outside_every_repository_do_not_share_one():
    assert "bare" not in shown("repo", cwd="/r", root="/r", repo=None)


def meant(target: str, *peers: Peer, now: float = 0.0) -> str:
    return resolve(target, peers, host="here", now=now).id


def test_an_id_means_its_peer():
    assert meant("b", peer("a"), peer("b")) == "b"


def test_an_id_wins_over_a_name():
    assert meant("a", peer("b", "a"), peer("a", "z")) == "a"


def test_a_name_means_its_peer():
    assert meant("main", peer("a", "main"), peer("b", "other")) == "a"


@pytest.mark.parametrize(
    ("target", "found"),
    [("main@there", "far"), ("main@here", "near")],
)
def test_a_name_with_a_host_means_the_peer_on_that_host(target, found):
    assert meant(target, peer("near", "main"), peer("far", "main", host="there")) == found


def test_a_directory_means_the_peer_that_works_in_it():
    assert meant("/r/src", TREE, DEEP) == "deep"


def test_a_word_without_a_slash_is_no_directory():
    with pytest.raises(PeerNotFoundError):
        meant("r", peer("a", cwd="r"))


def test_a_present_peer_wins_over_those_that_are_away():
    old = peer("old", "main", presence=Presence.AWAY)
    assert meant("main", old, peer("new", "main")) == "new"


def test_a_peer_that_is_away_can_still_be_meant():
    assert meant("main", peer("a", "main", presence=Presence.AWAY)) == "a"


@pytest.mark.parametrize("target", ["gone", "/there"])
def test_a_departed_peer_is_not_found_by_id_or_directory(target):
    with pytest.raises(PeerNotFoundError, match=target):
        meant(target, peer("gone", "main", cwd="/there", presence=Presence.DEPARTED))


def test_mail_by_name_waits_where_the_last_holder_left():
    first = peer("first", "main", presence=Presence.DEPARTED, last_seen="2026-01-01")
    last = peer("last", "main", presence=Presence.DEPARTED, last_seen="2026-01-02")
    assert meant("main", last, first) == "last"
    assert meant("main", last, peer("away", "main", presence=Presence.AWAY)) == "away"


def test_a_former_name_is_answered_to_for_a_while_unless_somebody_has_it_now():
    renamed = peer("renamed", "new", former=(("old", 100.0),))
    assert meant("old", renamed, now=99.0) == "renamed"
    assert meant("old", renamed, peer("other", "old"), now=99.0) == "other"
    with pytest.raises(PeerNotFoundError):
        meant("old", renamed, now=100.0)


@pytest.mark.parametrize("target", ["", "nobody", "main@elsewhere", "@", "/nowhere"])
def test_a_target_that_nobody_answers_to_is_not_found(target):
    with pytest.raises(PeerNotFoundError):
        meant(target, peer("a", "main", cwd="/r"))


def test_an_ambiguous_name_lists_the_candidates_and_chooses_none():
    with pytest.raises(AmbiguousPeerError) as refusal:
        meant("main", peer("a", "main"), peer("b", "main"), peer("c", "other"))
    assert refusal.value.candidates == ("a (main)", "b (main)")


def test_an_ambiguous_directory_lists_the_candidates():
    with pytest.raises(AmbiguousPeerError):
        meant("/r", peer("a", cwd="/r"), peer("b", cwd="/r"))


def test_a_directory_means_one_on_the_machine_of_who_asks():
    here = Peer(id=PeerId("here0000"), name="here", cwd="/p")
    there = Peer(id=PeerId("there000"), name="there", cwd="/p", machine="mac")
    for machine, found in (("", here), ("mac", there)):
        assert resolve("/p", [here, there], host="h", machine=machine) is found
        shown = visible([here, there], "directory", cwd="/p", root=None, machine=machine)
        assert shown == [found]
    assert visible([here, there], "machine", cwd="/p", root=None) == [here, there]
