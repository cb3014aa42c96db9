"""Making a token for an MCP client that speaks HTTP."""

from support import http
from support.letters import join
from support.waiting import eventually

PING = {"jsonrpc": "2.0", "id": 1, "method": "ping"}


def ping(configuration):
    """Return the status with which the broker answers a client that is configured so."""
    assert configuration["type"] == "http"
    address, path = configuration["url"].rsplit("/", 1)
    headers = {
        "Content-Type": "application/json",
        "Accept": "application/json, text/event-stream",
        **configuration["headers"],
    }
    port = int(address.rpartition(":")[2])
    return http.post(port, f"/{path}", PING, headers).status


def test_it_prints_a_configuration_that_works(cli, machine):
    machine.serve()
    made = cli("token", "Big Bob")
    assert made.code == 0
    assert made.value["url"] == f"http://127.0.0.1:{machine.port}/mcp"
    assert ping(made.value) == 200
    (peer,) = machine.peers()
    assert peer["name"] == "big-bob"
    assert "mcpServers" in made.err


def test_another_one_replaces_it_and_the_mailbox_stays(cli, machine):
    machine.serve()
    first = cli("token", "bob").value
    assert cli("send", "bob", "kept").code == 0
    second = cli("token", "bob").value
    assert [ping(first), ping(second)] == [401, 200]
    assert [peer["name"] for peer in machine.peers()] == ["bob"]
    assert "kept" in cli("inbox", "--of", "bob").out


def test_the_token_outlives_the_broker(cli, machine):
    node = machine.serve()
    made = cli("token", "bob").value
    node.kill()
    node.wait(10)
    machine.serve()
    assert eventually(lambda: ping(made) == 200)


def test_a_name_that_another_peer_has_gets_a_suffix(cli, machine):
    machine.serve()
    join(machine, "bob")
    made = cli("token", "bob")
    assert made.code == 0
    assert "bob is another peer's name: this one is called bob-2." in made.err


def test_without_a_broker_there_is_none(cli):
    assert cli("token", "bob").code == 6


def test_another_implementations_broker_has_no_mcp(cli, upstream):
    refused = cli("token", "bob")
    assert (refused.code, "no /mcp" in refused.err) == (6, True)
    assert upstream.requests == []


def test_a_broker_on_another_machine_wants_more_than_a_token(cli, monkeypatch):
    monkeypatch.setattr("claude_peers.cli.commands.token.Broker", Abroad)
    refused = cli("token", "bob")
    assert (refused.code, "stdio server" in refused.err) == (6, True)


class Abroad:
    """A broker that was joined."""

    class settings:  # noqa: N801 - an attribute of the real one
        remote = "hub.example:7899"

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass
