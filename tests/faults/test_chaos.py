"""Thirty sessions of which any may be killed, stopped or ended at any time, and new ones come.

`CLAUDE_PEERS_CHAOS_SECONDS` makes it longer, `CLAUDE_PEERS_CHAOS_SEED` repeats its choices.
"""

import os
import random
import sys

import pytest
from faults import chaos
from support.machine import Machine
from support.traffic import Account, Offer, account

SECONDS = float(os.environ.get("CLAUDE_PEERS_CHAOS_SECONDS", "30"))
SEED = int(os.environ.get("CLAUDE_PEERS_CHAOS_SEED") or random.SystemRandom().randrange(1 << 32))

ALL_AND_ONCE = Account(lost=0, duplicated=0, redelivered=0, reordered=0, unasked=0)


@pytest.mark.processes
@pytest.mark.xdist_group("processes")
@pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX signals")
@pytest.mark.fault("F2", "F3", "F8")
@pytest.mark.timeout(SECONDS + 240)
def test_in_chaos_nothing_is_lost_doubled_or_out_of_order(machine: Machine, unmeasured, tell):
    print(f"CLAUDE_PEERS_CHAOS_SEED={SEED}")
    came = chaos.run(machine, seconds=SECONDS, seed=SEED)
    tell(
        f"{sum(came.acts.values())} acts {came.acts}, {came.accepted} messages, "
        f"{len(came.kills)} leaders killed (ms): {chaos.percentiles(came.kills)}, "
        f"{len(came.handovers)} asked to end: {chaos.percentiles(came.handovers)}"
    )
    assert came.refused == []
    marked = {"pushed": came.pushed, "read": came.read, "kept": came.kept}
    assert {name: each._replace(redelivered=0) for name, each in marked.items()} == dict.fromkeys(
        marked, ALL_AND_ONCE
    )
    assert came.ledger["balanced"]
    assert came.ledger["accepted"] == came.accepted
    assert came.epochs == sorted(set(came.epochs))


@pytest.mark.parametrize(
    ("offered", "what"),
    [
        ("a b c", {}),
        ("a c", {"lost": 1}),
        ("a b b c", {"duplicated": 1}),
        ("a b b+ c", {"redelivered": 1}),
        ("a b+ c", {}),
        ("a c b", {"reordered": 1}),
        ("b c a", {"reordered": 1}),
        ("a b c d", {"unasked": 1}),
    ],
)
def test_what_went_wrong_is_counted(offered, what):
    offers = [Offer(word.rstrip("+"), word.endswith("+")) for word in offered.split()]
    assert account(["a", "b", "c"], offers) == ALL_AND_ONCE._replace(**what)
