"""A push is repeated three times, and only to an agent that is known to have sat idle since."""

import pytest
from support.rig import NOW, Doing, Rig, Route, stop_time

pytestmark = pytest.mark.anyio
DUE = (30, 120, 600)


@pytest.fixture
async def clock(monkeypatch):
    return stop_time(monkeypatch)


def proven(kind, activity):
    """Return a session with a proven route, and what tells how often it pushed."""
    if kind == "channel":
        rig = Rig(channel=True, activity=activity)
        return rig, lambda: [line["content"] for line in rig.lines]
    route = Route(kind)
    return Rig(route, activity=activity), lambda: route.texts


KINDS = pytest.mark.parametrize("kind", ["channel", "rewake"])


@KINDS
async def test_a_push_to_an_idle_agent_is_repeated_three_times_and_no_more(clock, kind):
    rig, pushes = proven(kind, Doing("idle", NOW - 1))
    await rig.arrive("one")
    counts = []
    for seconds in DUE:
        await clock.go_on(seconds - 1)
        counts.append(len(pushes()))
        await clock.go_on(1)
        counts.append(len(pushes()))
    await clock.go_on(100_000)
    assert [*counts, len(pushes())] == [1, 2, 2, 3, 3, 4, 4]
    assert rig.broker.ids("/pushed-messages") == [1, 1, 1, 1]
    assert rig.broker.told[-1][2] == f"{kind} again"


async def test_a_repetition_has_the_same_id_and_is_marked(clock):
    rig, _ = proven("channel", Doing("idle", NOW - 1))
    await rig.arrive("one", redelivered=2)
    await clock.go_on(1000)
    told = [(line["meta"]["message_id"], line["meta"].get("redelivered")) for line in rig.lines]
    assert told == [("1", "2"), ("1", "3"), ("1", "4"), ("1", "5")]


async def test_a_repetition_by_a_route_is_marked_and_its_receipt_counts(clock):
    rig, pushes = proven("rewake", Doing("idle", NOW - 1))
    await rig.arrive("one")
    await clock.go_on(30)
    assert "redelivered" not in pushes()[0]
    assert "redelivered, offered once before" in pushes()[1]
    rig.inbound.receipts(pushes()[1])
    assert rig.broker.ids("/ack-messages") == [1]


@KINDS
@pytest.mark.parametrize(
    "activity",
    [Doing("busy"), Doing("idle", NOW + 0.001), Doing("idle"), Doing()],
    ids=["busy", "idle since later", "idle since nobody knows when", "no record"],
)
async def test_an_agent_that_may_have_seen_it_is_left_alone(clock, kind, activity):
    rig, pushes = proven(kind, activity)
    await rig.arrive("one")
    await clock.go_on(100_000)
    assert len(pushes()) == 1


@KINDS
async def test_a_turn_since_the_push_ends_the_repeating_for_good(clock, kind):
    activity = Doing("idle", NOW - 1)
    rig, pushes = proven(kind, activity)
    await rig.arrive("one")
    await clock.go_on(30)
    activity.since = NOW + 60
    await clock.go_on(100_000)
    assert len(pushes()) == 2


async def test_an_agent_that_was_busy_when_it_was_due_is_left_alone_for_good(clock):
    activity = Doing("busy")
    rig, pushes = proven("channel", activity)
    await rig.arrive("one")
    await clock.go_on(31)
    activity.state, activity.since = "idle", NOW + 40
    await clock.go_on(100_000)
    assert len(pushes()) == 1


@KINDS
async def test_a_call_of_the_agent_ends_the_repeating(clock, kind):
    rig, pushes = proven(kind, Doing("idle", NOW - 1))
    await rig.arrive("one")
    rig.inbound.acted()
    await clock.go_on(100_000)
    assert len(pushes()) == 1


def shown(rig: Rig) -> None:
    rig.read_elsewhere(1)


def being_shown(rig: Rig) -> None:
    rig.member.in_hand.add(1)


def not_at_hand(rig: Rig) -> None:
    del rig.member.items[1]


@KINDS
@pytest.mark.parametrize("what", [shown, being_shown, not_at_hand])
async def test_evidence_ends_the_repeating(clock, kind, what):
    rig, pushes = proven(kind, Doing("idle", NOW - 1))
    await rig.arrive("one")
    what(rig)
    await clock.go_on(100_000)
    assert len(pushes()) == 1


async def test_a_courtesy_copy_is_not_repeated(clock):
    rig = Rig(activity=Doing("idle", NOW - 1))
    await rig.arrive("one")
    await clock.go_on(100_000)
    assert len(rig.lines) == 1


async def test_what_the_next_route_has_taken_is_repeated_as_often_as_any(clock):
    first, second = Route("rewake"), Route("inbox")
    rig = Rig(first, second, activity=Doing("idle", NOW - 1))
    await rig.hook("UserPromptSubmit", prompt="what the user says")
    await rig.arrive("one")
    await clock.go_on(3)
    assert (len(first.texts), len(second.texts)) == (1, 1)
    first.available = False
    await clock.go_on(100_000)
    assert len(second.texts) == 4


async def test_a_repetition_that_no_route_takes_is_none(clock):
    rig, pushes = proven("rewake", Doing("idle", NOW - 1))
    await rig.arrive("one")
    rig.ways.routes[0].available = False
    await clock.go_on(60)
    rig.ways.routes[0].available = True
    assert len(pushes()) == 1
    await clock.go_on(100)
    assert len(pushes()) == 2


async def test_a_channel_line_that_was_refused_is_no_repetition(clock):
    rig, _ = proven("channel", Doing("idle", NOW - 1))
    await rig.arrive("one")
    rig.writes = False
    await clock.go_on(100_000)
    assert rig.broker.ids("/pushed-messages") == [1]


async def test_what_has_expired_is_not_repeated(clock):
    rig, pushes = proven("channel", Doing("idle", NOW - 1))
    await rig.arrive("brief", expires_at=NOW + 20)
    rig.member.wall = clock.time
    await clock.go_on(100_000)
    assert len(pushes()) == 1
    assert rig.member.unread == set()
