"""Exporting everything as JSON lines."""

import json
import os
import stat

import pytest
from support.letters import die, join, send

from claude_peers import __version__
from claude_peers.cli import letters
from claude_peers.core.errors import NoBrokerError


@pytest.fixture
def told(machine):
    """Serve two peers, one of which has left, and 40 messages; return the ids of the peers."""
    machine.serve(CLAUDE_PEERS_RATE_LIMIT_RPM="0")
    alpha, beta = join(machine, "alpha"), join(machine, "beta")
    die(machine, beta, "dead")
    machine.post("/unregister", {"id": beta})
    for number in range(39):
        send(machine, alpha, f"text {number}\n\U0001f389")
    return [alpha, beta]


def lines(text):
    return [json.loads(line) for line in text.splitlines()]


def kinds(text):
    return [line["type"] for line in lines(text)]


def drafts(folder):
    return [each.name for each in folder.iterdir()]


@pytest.mark.parametrize("words", [(), ("-",), ("--json",)])
def test_header_peers_and_messages_come_as_lines(cli, told, words):
    ran = cli("export", *words)
    assert (ran.code, ran.err) == (0, "")
    assert ran.out.isascii()
    header, first, second, *messages = lines(ran.out)
    assert header["type"] == "header"
    assert header["version"] == __version__
    assert header["at"].endswith("Z")
    assert header["epoch"] == 1
    assert header["ledger"] == {
        "accepted": 40,
        "purged": 0,
        "states": {"queued": 39, "dead": 1},
        "balanced": True,
    }
    assert [(each["id"], each.get("presence")) for each in (first, second)] == [
        (told[0], None),
        (told[1], "departed"),
    ]
    assert [each["id"] for each in messages] == [*range(1, 41)]
    assert messages[0]["state"] == "dead"
    assert messages[39]["text"] == "text 38\n\U0001f389"


def test_no_token_and_no_key_is_in_it(cli, machine):
    machine.serve()
    session = machine.session(CLAUDE_PEERS_NAME="alpha")
    session.list_prompts()
    machine.peer_id(session)
    _, peer = lines(cli("export").out)
    assert not {"token", "token_hash", "keys"} & {*peer}


def test_a_file_is_for_its_owner_alone_and_complete(cli, told, tmp_path):
    path = tmp_path / "out.jsonl"
    before = os.umask(0)
    try:
        ran = cli("export", str(path))
    finally:
        os.umask(before)
    assert (ran.code, ran.err) == (0, "")
    assert ran.out == f"Wrote 40 message(s) and 2 peer(s) to {path}\n"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert kinds(path.read_text()) == ["header", "peer", "peer", *["message"] * 40]
    assert "out.jsonl" in drafts(tmp_path)
    assert not [name for name in drafts(tmp_path) if name.endswith(".tmp")]


def test_json_tells_what_was_written(cli, told, tmp_path):
    path = str(tmp_path / "out.jsonl")
    ran = cli("export", path, "--json")
    assert ran.value == {"file": path, "messages": 40, "peers": 2}


def test_a_file_that_exists_is_kept(cli, told, tmp_path):
    path = tmp_path / "out.jsonl"
    path.write_text("mine")
    ran = cli("export", str(path))
    assert (ran.code, ran.out) == (5, "")
    assert ran.err == f"Failed: {path} exists\nChoose another name, or replace it with --force.\n"
    assert path.read_text() == "mine"


def test_a_file_that_exists_is_replaced_by_force_and_becomes_private(cli, told, tmp_path):
    path = tmp_path / "out.jsonl"
    path.write_text("mine")
    path.chmod(0o644)
    assert cli("export", "--force", str(path)).code == 0
    assert kinds(path.read_text())[0] == "header"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


@pytest.mark.parametrize("link", [True, False], ids=["hard links", "no hard links"])
def test_a_file_that_comes_meanwhile_is_kept(cli, told, tmp_path, monkeypatch, link):
    path = tmp_path / "out.jsonl"
    reading = letters.pages

    def meanwhile(broker):
        path.write_text("mine")
        return reading(broker)

    monkeypatch.setattr(letters, "pages", meanwhile)
    if not link:
        monkeypatch.setattr(os, "link", refuse_links)
    ran = cli("export", "--json", str(path))
    assert (ran.code, ran.out, ran.error["code"]) == (5, "", "file_exists")
    assert path.read_text() == "mine"
    assert not [name for name in drafts(tmp_path) if name.endswith(".tmp")]


def refuse_links(_source, _target):
    raise PermissionError(1, "Operation not permitted")


def test_a_file_system_without_hard_links_will_do(cli, told, tmp_path, monkeypatch):
    monkeypatch.setattr(os, "link", refuse_links)
    path = tmp_path / "out.jsonl"
    assert cli("export", str(path)).code == 0
    assert len(lines(path.read_text())) == 43


@pytest.mark.parametrize("words", [(), ("--force",)])
def test_when_the_broker_goes_meanwhile_nothing_is_left(cli, told, tmp_path, monkeypatch, words):
    path = tmp_path / "out.jsonl"
    reading = letters.pages

    def break_off(broker):
        yield next(reading(broker))
        raise NoBrokerError("It has gone", "Try again.")

    monkeypatch.setattr(letters, "pages", break_off)
    before = drafts(tmp_path)
    ran = cli("export", str(path), *words)
    assert (ran.code, ran.out) == (6, "")
    assert drafts(tmp_path) == before


def test_a_folder_that_is_not_there_is_named(cli, told, tmp_path):
    path = tmp_path / "none" / "out.jsonl"
    ran = cli("export", str(path))
    assert (ran.code, ran.out) == (1, "")
    assert f"Failed: {path} cannot be written: No such file or directory" in ran.err


def test_without_a_broker_no_file_comes(cli, tmp_path):
    path = tmp_path / "out.jsonl"
    assert cli("export", str(path)).code == 6
    assert not path.exists()


def test_another_implementation_exports_nothing(cli, upstream):
    ran = cli("export")
    assert (ran.code, ran.out) == (6, "")
    assert upstream.requests == []


def test_messages_are_read_a_page_at_a_time(cli, told, monkeypatch):
    sizes = []
    asking = letters.page

    def ask(broker, **which):
        found = asking(broker, **which)
        sizes.append(len(found))
        return found

    monkeypatch.setattr(letters, "page", ask)
    cli("export")
    assert sizes == [32, 8, 0]
