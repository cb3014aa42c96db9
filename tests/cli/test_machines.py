"""Commands about other machines: invite, join, revoke, machines."""

import re
import sys

import pytest

from claude_peers.cli import output

pytestmark = pytest.mark.skipif(
    sys.platform != "linux", reason="127.0.0.2 is this machine on Linux only"
)
ABROAD = "127.0.0.2"


@pytest.fixture
def home(machine):
    """Return a machine whose broker listens for others."""
    machine.serve(CLAUDE_PEERS_BIND=ABROAD)
    return machine


@pytest.fixture
def away(cli, monkeypatch, tmp_path):
    """Return what runs a command line as if on another machine."""

    def run(*words, url=None):
        with monkeypatch.context() as there:
            there.setenv("CLAUDE_PEERS_DB", str(tmp_path / "away.db"))
            if url:
                there.setenv("CLAUDE_PEERS_BROKER_URL", url)
            return cli(*words)

    return run


def invited(cli, name="laptop"):
    ran = cli("invite", name)
    assert ran.code == 0, ran
    return ran.out.strip()


def test_an_invite_is_printed_alone_and_what_to_do_with_it_beside(cli, home):
    ran = cli("invite", "laptop", "--ttl", "2h", "--address", "mac.lan:7899")
    assert re.fullmatch(r"cp1_[A-Za-z0-9_-]+\n", ran.out)
    assert "claude-peers join" in ran.err
    told = cli("invite", "laptop", "--json").value
    assert told["addresses"] == [f"{ABROAD}:{home.port}"]


def test_a_machine_joins_uses_the_broker_and_is_revoked(cli, home, away):
    ran = away("join", invited(cli), "--json")
    assert ran.value["name"] == "laptop"
    url = ran.value["url"]
    assert url == f"https://{ABROAD}:{home.port}"
    assert away("send", "nobody", "hi", url=url).code == output.NO_SUCH_PEER
    told = away("status", url=url).out
    assert f"URL: {url}" in told
    assert "Leader: on another machine, epoch 1" in told
    assert "another machine leads" in away("doctor", url=url).out
    assert re.search(r"laptop.*joined since .*0 peer", cli("machines").out)
    assert f"Listens for other machines on {ABROAD}" in cli("status").out

    ran = cli("revoke", "laptop")
    assert (ran.code, ran.out) == (0, "laptop is revoked; 0 of its peers are gone.\n")
    ran = away("peers", "--json", url=url)
    assert (ran.code, ran.error["code"]) == (output.NO_BROKER, "machine_revoked")
    assert "revoked since" in cli("machines").out
    assert cli("revoke", "laptop", "--json").value == {"ok": True, "name": "laptop", "peers": 0}


def test_joining_tells_what_to_set(cli, home, away):
    ran = away("join", invited(cli))
    assert f"export CLAUDE_PEERS_BROKER_URL=https://{ABROAD}:{home.port}" in ran.out


@pytest.mark.parametrize("words", [("join",), ("join", "-")])
def test_a_join_string_is_read_from_stdin(cli, home, away, monkeypatch, words):
    import io

    monkeypatch.setattr("sys.stdin", io.StringIO(invited(cli) + "\nmore\n"))
    assert away(*words).code == 0
    terminal = io.StringIO(invited(cli, "other") + "\n")
    terminal.isatty = lambda: True
    monkeypatch.setattr("sys.stdin", terminal)
    assert "Paste the join string" in away(*words).err


def test_what_is_no_join_string_is_refused(cli, machine, monkeypatch):
    ran = cli("join", "cp1_nonsense", "--json")
    assert (ran.code, ran.error["code"]) == (output.USAGE, "bad_request")
    monkeypatch.setattr("sys.stdin", None)
    assert cli("join").code == output.USAGE


@pytest.mark.bug("P1")
def test_a_broker_that_was_never_joined_is_refused(cli, machine, away):
    ran = away("peers", "--json", url="https://127.0.0.2:9")
    assert (ran.code, ran.error["code"]) == (output.USAGE, "not_joined")


def test_where_nobody_could_come_nobody_is_invited(cli, machine):
    machine.serve()
    ran = cli("invite", "laptop", "--json")
    assert (ran.code, ran.error["code"]) == (output.FAILED, "not_listening")
    assert "CLAUDE_PEERS_BIND" in ran.error["remedy"]
    assert "CLAUDE_PEERS_BIND" in cli("machines").out


def test_a_listener_that_cannot_be_is_told_everywhere(cli, machine):
    machine.serve(CLAUDE_PEERS_BIND="192.0.2.77")
    for words in (("machines",), ("status",), ("doctor",)):
        assert "cannot listen on 192.0.2.77" in cli(*words).out
    assert cli("doctor").code == 1
    assert cli("invite", "laptop", "--json").error["code"] == "not_listening"
    assert "cannot listen on 192.0.2.77" in (machine.root / "process0.log").read_text()


def test_the_states_of_machines_are_told_in_words(cli, home, away):
    invited(cli, "one")
    assert cli("invite", "two", "--ttl", "0.001s").code == 0
    out = cli("machines").out
    assert re.search(r"one\S*  invited until ", out)
    assert re.search(r"two\S*  expired since ", out)
    assert cli("machines", "--json").value["listening"] == [f"{ABROAD}:{home.port}"]


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("revoke", "nobody"), output.NO_SUCH_PEER),
        (("invite", "Not A Name"), output.USAGE),
        (("invite", "x", "--ttl", "8d"), output.USAGE),
        (("invite", "x", "--address", "nowhere"), output.USAGE),
    ],
)
def test_what_cannot_be_done_has_its_exit_code(cli, home, words, code):
    assert cli(*words).code == code
