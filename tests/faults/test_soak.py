"""Traffic of some minutes as fast as it goes: nothing is lost, and nothing grows that should not.

`CLAUDE_PEERS_SOAK_SECONDS=3600` is an hour's worth.
"""

import os
import sys

import pytest
from faults import soak
from support.machine import Machine
from support.traffic import Account

SECONDS = float(os.environ.get("CLAUDE_PEERS_SOAK_SECONDS", "300"))
ALL_AND_ONCE = Account(lost=0, duplicated=0, redelivered=0, reordered=0, unasked=0)
ROUNDS = 200


@pytest.mark.processes
@pytest.mark.xdist_group("processes")
@pytest.mark.skipif(sys.platform != "linux", reason="processes are looked at in /proc")
@pytest.mark.timeout(SECONDS + 240)
def test_traffic_leaves_no_traces_but_its_messages(machine: Machine, unmeasured, tell):
    came = soak.run(machine, seconds=SECONDS)
    tell(f"{came.messages} messages, {came.restarts} restarts, {soak.summary(came.series)}")
    assert came.refused == []
    assert set(came.accounts().values()) == {ALL_AND_ONCE}
    assert came.ledger["balanced"]
    assert came.late == 0
    assert came.messages + came.large + came.expiring == came.ledger["accepted"]
    assert soak.growing(came.series) == []


@pytest.mark.parametrize(
    ("name", "leak"),
    [
        ("leader's memory", 15),
        ("session's memory", 15),
        ("leader's descriptors", 0.1),
        ("session's threads", 0.1),
        ("write-ahead log", 40_000),
    ],
)
def test_a_leak_is_noticed(name, leak):
    wavy = [1000 * (each % 3 == 0) if leak > 1 else 0 for each in range(ROUNDS)]
    leaking = [round(20_000 + leak * each) + wave for each, wave in enumerate(wavy)]
    level = [20_000 + wave for wave in wavy]

    assert [found.name for found in soak.growing({name: leaking, f"other {name}": level})] == [name]


def test_what_is_lost_once_for_ever_is_noticed():
    descriptors = [20] * (ROUNDS // 2) + [26] * (ROUNDS // 2)

    assert soak.growing({"leader's descriptors": descriptors})


def test_what_rises_until_it_is_full_or_stands_out_once_is_no_leak():
    filling = [min(20_000 + 100 * each, 24_000) for each in range(ROUNDS)]
    filling[-5] = 40_000

    assert soak.growing({"leader's memory": filling}) == []


def test_a_store_may_grow_steadily_but_not_faster_and_faster():
    steadily = [4096 * each for each in range(ROUNDS)]
    faster = [100 * each * each for each in range(ROUNDS)]

    assert soak.growing({"database": steadily, "log file": [93] * ROUNDS}) == []
    assert [found.name for found in soak.growing({"database": faster})] == ["database"]
    assert soak.growing({"log file": [max(0, each - 150) * 9000 for each in range(ROUNDS)]})
