"""A session starts whatever happened to its database, and tells; nothing is overwritten."""

import pytest
from faults import accidents
from support.machine import Machine
from support.waiting import eventually

pytestmark = [pytest.mark.processes, pytest.mark.xdist_group("processes")]


@pytest.mark.parametrize("accident", accidents.FOR_GOOD, ids=lambda each: each.__name__)
@pytest.mark.fault("F19", "F22")
def test_a_session_tells_what_is_wrong_with_the_database(machine: Machine, accident):
    accident(machine.database)
    before = machine.database.read_bytes()
    session = machine.session()
    assert session.list_prompts() is not None  # it answers its client all the same

    told, failed = session.call("list_peers")

    assert failed
    assert accidents.FOR_GOOD[accident] in told
    assert "CLAUDE_PEERS_DB" in told or "Upgrade" in told
    assert machine.database.read_bytes() == before


@pytest.mark.fault("F20")
def test_a_database_that_was_locked_is_used_once_it_is_free(machine: Machine):
    accidents.ours(machine.database)
    with accidents.locked(machine.database):
        session = machine.session()
        session.list_prompts()
    eventually(lambda: "peer" in session.call("list_peers")[0].lower(), what="a broker")
    assert machine.post("/ledger")["balanced"]
