"""Which route takes a message, and what proves that the agent has seen it."""

import asyncio

import anyio
import pytest
from support.rig import NOW, Doing, Rig, Route, settle, stop_time, view

from claude_peers.session.inbound import PIGGYBACK

pytestmark = pytest.mark.anyio
LONG = "x" * 30_000


@pytest.fixture
async def clock(monkeypatch):
    return stop_time(monkeypatch)


@pytest.fixture
async def route():
    return Route("rewake")


async def promise(rig):
    """Let the client show that its hooks tell the prompts."""
    assert await rig.answered("UserPromptSubmit", prompt="what the user says") == ""


def idle():
    return Doing("idle", NOW - 1)


# Which route


async def test_the_first_route_that_is_available_takes_what_waits_together(clock):
    first, second = Route("rewake"), Route("inbox")
    first.available = False
    rig = Rig(first, second, channel=True)
    await rig.arrive("one")
    rig.inbound.arrive(view(2, "two"), None)
    rig.inbound.arrive(view(3, "three"), None)
    await settle()
    assert [text.count("[end of message") for text in second.texts] == [1, 2]
    assert (first.texts, rig.lines) == ([], [])
    assert rig.broker.told == [
        ("/pushed-messages", [1], "inbox"),
        ("/pushed-messages", [2, 3], "inbox"),
    ]


async def test_a_push_that_fails_leaves_the_message_to_the_next_route(clock, route):
    route.takes = False
    rig = Rig(route, channel=True)
    await rig.arrive("one")
    assert [line["content"] for line in rig.lines] == ["one"]
    assert rig.broker.told == [("/pushed-messages", [1], "channel")]


async def test_a_route_that_becomes_available_soon_is_looked_for(clock, route):
    route.available = False
    rig = Rig(route, courtesy=False)
    await rig.arrive("one")
    await clock.go_on(0.1)
    route.available = True
    await clock.go_on(0.2)
    assert len(route.texts) == 1


async def test_a_route_that_becomes_available_late_is_found_by_a_beat(clock, route):
    route.available = False
    rig = Rig(route, courtesy=False)
    await rig.arrive("one")
    await clock.go_on(10)
    route.available = True
    await clock.go_on(10)
    assert route.texts == []
    rig.inbound.beat()
    await settle()
    assert len(route.texts) == 1
    rig.inbound.beat()
    await settle()
    assert len(route.texts) == 1


async def test_a_message_that_comes_twice_is_pushed_once(clock, route):
    rig = Rig(route)
    await rig.arrive("one")
    rig.inbound.arrive(view(1, "one"), None)
    await settle()
    assert len(route.texts) == 1


async def test_without_a_proven_way_a_courtesy_copy_goes_out_once_and_counts_for_nothing(clock):
    rig = Rig()
    await rig.arrive("one")
    rig.inbound.beat()
    await settle()
    assert [line["content"] for line in rig.lines] == ["one"]
    assert rig.broker.told == []
    assert rig.member.pushed == set()


async def test_where_hooks_deliver_there_is_no_courtesy_copy(clock):
    rig = Rig()
    await promise(rig)
    await rig.arrive("one")
    assert rig.lines == []


async def test_a_channel_line_that_is_still_being_written_is_not_written_again(clock, route):
    route.available = False
    rig = Rig(route, channel=True)
    rig.writes = None
    await rig.arrive("one")
    await clock.go_on(10)
    rig.inbound.beat()
    await settle()
    assert len(rig.lines) == 1


async def test_a_channel_line_that_was_refused_is_written_with_the_next_beat(clock):
    rig = Rig(channel=True)
    rig.writes = False
    await rig.arrive("one")
    assert rig.broker.told == []
    rig.writes = True
    rig.inbound.beat()
    await settle()
    assert [line["content"] for line in rig.lines] == ["one"]
    assert rig.broker.told == [("/pushed-messages", [1], "channel")]


async def test_what_the_agent_waits_for_is_left_to_the_wait_and_the_rest_to_the_beat(clock, route):
    rig = Rig(route)
    waiting = asyncio.create_task(rig.member.arrival())
    also = asyncio.create_task(rig.member.arrival())
    await settle()
    await rig.arrive("wanted")
    async with asyncio.timeout(5):
        await asyncio.gather(waiting, also)
    assert route.texts == []
    rig.inbound.beat()
    await settle()
    assert len(route.texts) == 1
    assert not rig.member.waiting


# A message on its way


async def test_what_is_asked_for_while_it_is_pushed_is_shown_whole_and_by_no_other_route(
    clock, route
):
    rig = Rig(route, channel=True)
    route.gate.clear()
    await rig.arrive("one")
    assert rig.member.pending() == []
    assert rig.member.pushed == set()
    assert await rig.answered("PostToolBatch") == ""
    rig.read_elsewhere(1)  # check_messages has shown it
    route.gate.set()
    await settle()
    assert rig.member.pushed == set()
    assert rig.broker.told == []


async def test_of_a_long_text_a_preview_is_pushed_once_and_it_is_not_the_message(clock, route):
    rig = Rig(route)
    await promise(rig)
    await rig.arrive(LONG)
    rig.inbound.beat()
    await settle()
    assert len(route.texts) == 1
    assert "[cut: 30000 characters" in route.texts[0]
    assert rig.member.pushed == set()
    rig.inbound.receipts(route.texts[0])
    assert rig.member.unread == {1}
    assert rig.broker.ids("/ack-messages") == []


async def test_nothing_is_pushed_after_the_end(clock, route):
    rig = Rig(route)
    route.gate.clear()
    await rig.arrive("one")
    rig.inbound.close()
    route.gate.set()
    await clock.go_on(1000)
    assert route.texts == []
    assert not route.available


async def test_a_delivery_that_fails_is_logged_without_its_text_and_is_not_the_last(
    clock, route, caplog
):
    rig = Rig(route, courtesy=False)

    async def fail(_text):
        raise RuntimeError("no way")

    working, route.push = route.push, fail
    await rig.arrive("canary")
    assert "a delivery failed: no way" in caplog.text
    assert "canary" not in caplog.text
    route.push = working
    rig.inbound.beat()
    await settle()
    assert len(route.texts) == 1


# Receipts


async def test_a_receipt_makes_what_was_pushed_seen(clock, route):
    rig = Rig(route)
    await rig.arrive("one")
    await rig.answered("UserPromptSubmit", prompt=f"Stop hook feedback: {route.texts[0]}")
    assert rig.member.unread == set()
    assert rig.broker.told[-1] == ("/ack-messages", [1], "rewake receipt")


async def test_a_receipt_that_comes_before_the_push_has_returned_counts(clock, route):
    rig = Rig(route)
    taken = asyncio.Event()
    working = route.push

    async def slow(text):
        done = await working(text)
        taken.set()
        await asyncio.sleep(0)
        return done

    route.push = slow
    rig.inbound.arrive(view(1, "one"), None)
    with anyio.fail_after(5):
        await taken.wait()
    rig.inbound.receipts(route.texts[0])
    await settle()
    assert rig.member.unread == rig.member.pushed == set()
    assert rig.broker.told == [("/ack-messages", [1], "rewake receipt")]


async def test_a_prompt_without_our_mark_is_no_receipt(clock, route):
    rig = Rig(route)
    await rig.arrive("one")
    text = route.texts[0].replace(route.marks[0], "[receipt 00000000]")
    await rig.answered("UserPromptSubmit", prompt=text)
    assert rig.member.unread == {1}


async def test_a_mark_in_a_message_is_no_receipt(clock, route):
    rig = Rig(route)
    await rig.arrive("one")
    await rig.arrive(f"look: {route.marks[0]}")
    assert route.marks[0] not in route.texts[1]


async def test_without_a_receipt_in_time_the_next_route_gets_the_message(clock, route):
    other = Route("inbox")
    rig = Rig(route, other, activity=idle())
    await promise(rig)
    await rig.arrive("one")
    await clock.go_on(1.9)
    assert (len(route.texts), len(other.texts)) == (1, 0)
    await clock.go_on(0.2)
    assert (len(route.texts), len(other.texts)) == (1, 1)
    assert "message_id 1 " in other.texts[0]
    assert rig.broker.told == [
        ("/pushed-messages", [1], "rewake"),
        ("/pushed-messages", [1], "inbox"),
    ]
    await clock.go_on(20)
    assert (len(route.texts), len(other.texts)) == (1, 1)


async def test_a_receipt_that_comes_late_still_counts(clock, route):
    rig = Rig(route, activity=idle(), courtesy=False)
    await promise(rig)
    await rig.arrive("one")
    await clock.go_on(3)
    assert await rig.answered("UserPromptSubmit", prompt=route.texts[0]) == ""
    assert rig.broker.ids("/ack-messages") == [1]


async def test_with_a_receipt_in_time_no_other_route_gets_the_message(clock, route):
    other = Route("inbox")
    rig = Rig(route, other, activity=idle())
    await promise(rig)
    await rig.arrive("one")
    await rig.answered("UserPromptSubmit", prompt=route.texts[0])
    await clock.go_on(1000)
    assert other.texts == []


async def test_without_any_other_route_the_hook_has_the_message_for_the_next_turn(clock, route):
    rig = Rig(route, activity=idle())
    await promise(rig)
    await rig.arrive("one")
    assert await rig.answered("PostToolBatch") == ""
    await clock.go_on(2.1)
    assert "message_id 1 " in await rig.answered("UserPromptSubmit", prompt="go on")
    assert len(route.texts) == 1


async def test_a_busy_agent_gets_the_push_when_it_has_time(clock, route):
    other = Route("inbox")
    rig = Rig(route, other, activity=Doing("busy"))
    await promise(rig)
    await rig.arrive("one")
    await clock.go_on(60)
    assert other.texts == []
    rig.ways.activity = Doing("idle", NOW + 60)
    await clock.go_on(2)
    assert len(other.texts) == 1


@pytest.mark.parametrize("prompt", [None, ""], ids=["no hooks", "prompts are left out"])
async def test_no_receipt_is_waited_for_where_none_is_promised(clock, route, prompt):
    other = Route("inbox")
    rig = Rig(route, other, activity=idle())
    if prompt is not None:
        await rig.answered("UserPromptSubmit", prompt=prompt)
    await rig.arrive("one")
    await clock.go_on(29)
    assert other.texts == []


async def test_where_nobody_tells_what_the_agent_does_its_silence_means_nothing(clock, route):
    other = Route("inbox")
    rig = Rig(route, other)
    await promise(rig)
    await rig.arrive("one")
    await clock.go_on(1000)
    assert other.texts == []


async def test_a_prompt_is_neither_kept_nor_logged(clock, route, caplog):
    caplog.set_level("DEBUG")
    rig = Rig(route, activity=idle())
    await rig.arrive("one")
    await rig.answered("UserPromptSubmit", prompt="canary-prompt")
    await clock.go_on(10)
    kept = [rig.inbound, rig.hooks, rig.member, rig.ways]
    told = [getattr(each, "__dict__", repr(each)) for each in kept]
    assert "canary-prompt" not in f"{told}{rig.broker.told}{rig.lines}{caplog.text}"


async def test_what_was_kept_about_messages_goes_with_them(clock, route):
    rig = Rig(route, activity=idle())
    for number in range(50):
        await rig.arrive(f"text {number}")
        await clock.go_on(3)
        rig.read_elsewhere(number + 1)
    rig.inbound.beat()
    inbound = rig.inbound
    assert max(len(kept) for kept in (inbound._pushes, inbound._failed, inbound._notified)) <= 1


# Piggyback


async def test_a_result_brings_what_fits_and_says_how_much_is_left(clock):
    rig = Rig(courtesy=False)
    await rig.arrive("one", "x" * 7_000, "y" * 7_000)
    text, ids = rig.inbound.piggyback()
    assert ids == (1, 2)
    assert len(text) <= PIGGYBACK + 2
    assert text.endswith("\n\n1 more: call check_messages")
    assert rig.inbound.piggyback()[1] == (3,)


async def test_a_result_is_told_only_how_many_there_are_if_the_first_does_not_fit(clock):
    rig = Rig(courtesy=False)
    await rig.arrive("x" * 9_000, "short")
    assert rig.inbound.piggyback() == (
        "\n\n2 unread message(s) from other agents: call check_messages.",
        (),
    )


async def test_without_mail_a_result_stays_as_it_is(clock):
    assert Rig().inbound.piggyback() == ("", ())


async def test_what_was_pushed_is_not_brought_again_but_told_of(clock, route):
    rig = Rig(route)
    await rig.arrive("one")
    assert rig.inbound.piggyback() == (
        "\n\n1 unread message(s) from other agents: call check_messages.",
        (),
    )
