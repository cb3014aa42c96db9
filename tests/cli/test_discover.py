"""`discover` lists the brokers that announce themselves, and joins none."""

import json
import threading

from claude_peers.host import lan
from claude_peers.wire import announcement


class Herald:
    """Announces a broker over and over, until it is told to stop."""

    def __init__(self, target, *datagrams):
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._announce, args=(target, datagrams))
        self._thread.start()

    def _announce(self, target, datagrams):
        while not self._stop.wait(0.02):
            for each in datagrams:
                lan.send(each, target)

    def stop(self):
        self._stop.set()
        self._thread.join(10)


def test_brokers_are_listed_once_each_and_nothing_else_is(cli, machine, monkeypatch):
    target = ("127.0.0.1", machine.port + 1)
    monkeypatch.setenv("CLAUDE_PEERS_DISCOVERY_ADDRESS", "127.0.0.1")
    told = announcement.encode(host="hub", addresses=["10.0.0.1:7899"], fleet_id="gold\x1b")
    herald = Herald(target, told, b"noise", json.dumps({"type": "OTHER"}).encode())
    try:
        ran = cli("discover", "--timeout", "1")
        (only,) = cli("discover", "--timeout", "1", "--json").value
    finally:
        herald.stop()
    (line,) = ran.out.splitlines()
    assert line.startswith("https://hub:7899  claude-peers/") and "fleet gold" in line
    assert line.endswith("heard from 127.0.0.1") and "\x1b" not in line
    assert "claude-peers invite NAME" in ran.err and "None of it is proved" in ran.err
    assert (only["url"], only["ips"], only["source"]) == (
        "https://hub:7899",
        ["10.0.0.1"],
        "127.0.0.1",
    )


def test_silence_is_told_with_what_would_end_it(cli, monkeypatch):
    monkeypatch.setenv("CLAUDE_PEERS_DISCOVERY_ADDRESS", "127.0.0.1")
    ran = cli("discover", "--timeout", "0.1")
    assert (ran.code, ran.out) == (3, "")
    assert "CLAUDE_PEERS_DISCOVERY=1" in ran.err


def test_a_leader_that_listens_for_other_machines_announces_itself(cli, machine, monkeypatch):
    target = ("127.0.0.1", machine.port + 1)
    monkeypatch.setenv("CLAUDE_PEERS_DISCOVERY_ADDRESS", "127.0.0.1")
    machine.serve(
        CLAUDE_PEERS_BIND="127.0.0.2",
        CLAUDE_PEERS_DISCOVERY="1",
        CLAUDE_PEERS_DISCOVERY_ADDRESS=f"{target[0]}:{target[1]}",
        AGENTMESH_FLEET_ID="gold",
    )
    received = lan.receive(target, within=40.0, longest=announcement.LONGEST)
    data, source = next(received)
    received.close()
    told = announcement.decode(data, source)
    assert (told.fleet_id, told.ips) == ("gold", ("127.0.0.2",))
    assert told.url.startswith("https://") and told.url.endswith(f":{machine.port}")
