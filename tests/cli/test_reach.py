"""A command that comes while one broker hands over to the next."""

import time

import pytest
from cli.conftest import Upstream

from claude_peers.cli import reach


@pytest.mark.parametrize("refusals", [1, 3])
def test_a_command_goes_to_the_next_broker_by_itself(cli, upstream, refusals):
    upstream.handing_over = refusals

    ran = cli("send", "abcd1234", "hello")

    assert (ran.code, ran.err) == (0, "")
    sent = [body for path, body in upstream.requests if path == "/send-message"]
    assert {body["text"] for body in sent} == {"hello"}
    assert len(upstream.requests) - refusals == len({path for path, _ in upstream.requests})


def test_a_broker_that_goes_on_handing_over_is_told_of_in_the_end(cli, upstream, monkeypatch):
    monkeypatch.setattr(reach, "PATIENCE", 0.3)
    upstream.handing_over = 1000

    ran = cli("send", "abcd1234", "hello")

    assert ran.code == 1
    assert "succeeded" in ran.err
    assert upstream.handing_over < 999


@pytest.mark.parametrize(("comes", "code"), [(True, 0), (False, 6)])
def test_the_next_broker_may_take_a_moment(cli, machine, upstream, monkeypatch, comes, code):
    upstream.handing_over = 1
    brokers = [upstream]
    monkeypatch.setattr(reach, "PATIENCE", 30.0 if comes else 0.3)

    def meanwhile(seconds):
        sleep(seconds)
        if len(brokers) == 1:
            brokers.pop().close()
        elif comes and not brokers:
            brokers.extend([Upstream(machine.port)] * 2)

    sleep = time.sleep
    monkeypatch.setattr(reach.time, "sleep", meanwhile)

    ran = cli("send", "abcd1234", "hello")

    assert ran.code == code
    if comes:
        brokers[0].close()
