"""How many streams there may be, of whom."""

from dataclasses import dataclass

import pytest

from claude_peers.gateway.places import EACH, CrowdedError, Places, check

PLACES = Places(requests=99, streams=40, together=99, strangers=10)
HALF = PLACES.streams // 2


@dataclass
class Stream:
    """One who has a stream."""

    holder: str | None = None
    machine: str = ""
    stranger: bool = False


def each_its_own(count, **fields):
    return [Stream(f"token-{number}", **fields) for number in range(count)]


@pytest.mark.threat("T24")
@pytest.mark.parametrize(
    ("new", "others"),
    [
        (Stream("mine"), each_its_own(PLACES.streams)),
        (Stream("mine"), [Stream("mine")] * EACH),
        (Stream(""), [Stream("")] * HALF),
        (Stream(machine="m"), [Stream(machine="m")] * HALF),
        (Stream("mine", "m"), each_its_own(HALF, machine="m")),
        (Stream("mine", stranger=True), each_its_own(PLACES.strangers, stranger=True)),
    ],
    ids=["all", "token", "nobody", "machine", "machine's token", "strangers"],
)
def test_there_are_so_many_of_a_kind_and_places_for_others(new, others):
    with pytest.raises(CrowdedError, match=f"^{len(others)} "):
        check(new, others, PLACES)
    check(new, others[1:], PLACES)
    if len(others) < PLACES.streams:
        check(Stream("yours"), others, PLACES)
        check(Stream(machine="other"), others, PLACES)
