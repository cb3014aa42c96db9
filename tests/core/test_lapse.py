"""What two clocks say of the time between two looks."""

import pytest

from claude_peers.core import lapse
from claude_peers.core.lapse import SLEPT, STEP, Look


@pytest.mark.parametrize(("passed", "slept"), [(2.0, False), (SLEPT, False), (SLEPT + 1, True)])
def test_who_has_not_looked_for_long_has_slept(passed, slept):
    assert lapse.slept(Look(100.0, 5.0), Look(100.0 + passed, 5.0 + passed)) is slept


@pytest.mark.parametrize(
    ("wall", "monotonic", "step"),
    [
        (2.0, 2.0, 0.0),
        (8 * 3600.0, 8 * 3600.0, 0.0),
        (2.0 + STEP, 2.0, 0.0),
        (3602.0, 2.0, 3600.0),
        (-3598.0, 2.0, -3600.0),
    ],
)
def test_only_what_the_steady_clock_does_not_explain_is_a_step(wall, monotonic, step):
    assert lapse.step(Look(1000.0, 0.0), Look(1000.0 + wall, monotonic)) == step
