"""What the client's hooks are answered, and when that has put mail before the agent."""

import pytest
from support.rig import Rig, Route, context, settle

from claude_peers.session import hooks as session_hooks
from claude_peers.tools.member import Hooks
from claude_peers.tools.registry import Shown
from claude_peers.wire import hooks

pytestmark = pytest.mark.anyio
TAKING = ["UserPromptSubmit", "PostToolBatch"]
LIMIT = 9_500


@pytest.fixture
async def rig():
    return Rig()


def use(number):
    """Return the `_meta` of a model's call."""
    return {session_hooks.TOOL_USE: f"toolu_{number}"}


# Mail


@pytest.mark.parametrize("event", TAKING)
async def test_mail_is_answered_as_one_block_for_that_event(rig, event):
    await rig.arrive("one", "two\nlines")
    shown = await rig.hook(event)
    assert shown.message_ids == (1, 2)
    assert shown.text == hooks.context(event, context(shown))
    assert "\none\n[end of message 1]" in context(shown)
    assert "two\nlines" in context(shown)


@pytest.mark.parametrize("event", [*TAKING, "PreToolUse", "Stop", "SessionEnd", ""])
async def test_without_mail_the_answer_is_an_empty_object(rig, event):
    assert await rig.hook(event) == Shown("{}", (), via="hook")


@pytest.mark.parametrize("event", ["PreToolUse", "Stop", "PostToolUse"])
async def test_another_event_takes_no_mail(rig, event):
    await rig.arrive("one")
    assert (await rig.hook(event)).text == "{}"
    assert rig.inbound.piggyback()[1] == (1,)


@pytest.mark.parametrize("sign", ["x", '"', "\\", "\n", "🙂", "ä"])
@pytest.mark.parametrize("event", TAKING)
async def test_an_answer_is_under_the_limit_whatever_is_in_it(rig, event, sign):
    await rig.arrive(*[sign * 1_500] * 12)
    answers = []
    while (shown := await rig.hook(event)).message_ids:
        rig.hooks.answered(shown, whole=True)
        answers.append(shown)
    assert all(len(each.text.encode("utf-16-le")) // 2 < LIMIT for each in answers)
    assert [number for each in answers for number in each.message_ids] == [*range(1, 13)]


async def test_of_a_long_message_the_beginning_is_shown_once_and_the_whole_on_asking(rig):
    text = "first line\n" + "x" * 12_000 + " the end"
    await rig.arrive(text)
    shown = await rig.hook("PostToolBatch")
    assert shown.message_ids == ()
    assert len(shown.text) < LIMIT
    assert "first line" in shown.text
    assert "call check_messages for the rest" in shown.text
    rig.hooks.answered(shown, whole=True)
    assert (await rig.hook("PostToolBatch")).text == "{}"
    assert rig.broker.told == []
    assert rig.member.pushed == set()


async def test_a_beginning_that_was_not_written_is_shown_again(rig):
    await rig.arrive("x" * 12_000)
    shown = await rig.hook("PostToolBatch")
    rig.hooks.answered(shown, whole=False)
    assert await rig.hook("PostToolBatch") == shown


async def test_another_route_that_the_user_chose_keeps_mail_out_of_answers():
    route = Route()
    rig = Rig(route, mail=False)
    await rig.arrive("one")
    assert await rig.answered("UserPromptSubmit", prompt=route.texts[0]) == ""
    assert rig.broker.ids("/ack-messages") == [1]
    route.available = False
    await rig.arrive("two")
    assert await rig.answered("PostToolBatch") == ""
    assert rig.ways.name == ""


# Evidence


@pytest.mark.bug("U1")
async def test_an_answer_that_was_written_is_a_push_and_no_evidence(rig):
    await rig.arrive("one")
    await rig.answered("PostToolBatch")
    assert rig.broker.told == [("/pushed-messages", [1], "hook")]
    assert rig.member.unread == {1}
    assert rig.inbound.piggyback()[1] == ()


async def test_an_answer_under_way_is_in_nobody_elses_hands(rig):
    await rig.arrive("one")
    await rig.hook("PostToolBatch")
    assert (await rig.hook("UserPromptSubmit")).text == "{}"
    assert rig.inbound.piggyback() == ("", ())


@pytest.mark.parametrize("event", TAKING)
async def test_an_answer_that_was_cancelled_or_not_written_puts_its_mail_back_at_once(rig, event):
    await rig.arrive("one")
    shown = await rig.hook(event)
    rig.hooks.answered(shown, whole=False)
    assert rig.broker.told == []
    assert await rig.hook(event) == shown


@pytest.mark.parametrize("event", TAKING)
async def test_an_answer_that_is_cancelled_after_it_was_written_puts_its_mail_back(rig, event):
    await rig.arrive("one")
    shown = await rig.hook(event)
    rig.hooks.answered(shown, whole=True)
    rig.hooks.answered(shown, whole=False)
    rig.hooks.went_on()
    assert rig.broker.ids("/ack-messages") == []
    assert await rig.hook(event) == shown


async def test_mail_of_an_answer_that_is_cancelled_late_goes_to_another_route_at_once():
    route = Route()
    route.available = False
    rig = Rig(route)
    await rig.arrive("one")
    shown = await rig.hook("PostToolBatch")
    rig.hooks.answered(shown, whole=True)
    route.available = True
    rig.hooks.answered(shown, whole=False)
    await settle()
    assert ["one" in text for text in route.texts] == [True]


async def test_a_cancellation_after_the_client_went_on_changes_nothing(rig):
    await rig.arrive("one")
    shown = await rig.hook("PostToolBatch")
    rig.hooks.answered(shown, whole=True)
    rig.hooks.went_on()
    rig.hooks.answered(shown, whole=False)
    assert rig.broker.ids("/ack-messages") == [1]
    assert (rig.member.unread, rig.member.pending()) == (set(), [])


async def test_a_beginning_that_was_seen_is_not_shown_again_by_a_cancellation(rig):
    await rig.arrive("x" * 12_000)
    shown = await rig.hook("PostToolBatch")
    rig.hooks.answered(shown, whole=True)
    rig.hooks.went_on()
    rig.hooks.answered(shown, whole=False)
    assert (await rig.hook("PostToolBatch")).text == "{}"


async def test_a_beginning_whose_answer_is_cancelled_late_is_shown_again(rig):
    await rig.arrive("x" * 12_000)
    shown = await rig.hook("PostToolBatch")
    rig.hooks.answered(shown, whole=True)
    rig.hooks.answered(shown, whole=False)
    assert await rig.hook("PostToolBatch") == shown


@pytest.mark.parametrize("event", [*TAKING, "PreToolUse", "Stop"])
async def test_the_next_hook_shows_that_the_client_went_on(rig, event):
    await rig.arrive("one")
    await rig.answered("PostToolBatch")
    await rig.hook(event)
    assert rig.broker.told[-1] == ("/ack-messages", [1], "hook")
    assert rig.member.unread == set()


async def test_the_same_evidence_is_told_once(rig):
    await rig.arrive("one")
    await rig.answered("PostToolBatch")
    rig.hooks.went_on()
    rig.hooks.went_on()
    await rig.hook("Stop")
    assert rig.broker.ids("/ack-messages") == [1]


@pytest.mark.parametrize("event", [*TAKING, "PreToolUse"])
async def test_a_sub_agents_hook_shows_nothing_about_the_main_agent(rig, event):
    await rig.arrive("one")
    await rig.answered("PostToolBatch")
    await rig.hook(event, agent_id="a1", tool_use_id="toolu_9")
    assert rig.broker.ids("/ack-messages") == []
    assert rig.member.unread == {1}


# Sub-agents


@pytest.mark.parametrize("event", [*TAKING, "PreToolUse", "Stop"])
async def test_a_sub_agents_hooks_are_silent_and_take_no_mail(rig, event):
    await rig.arrive("one")
    assert (await rig.hook(event, agent_id="a1", prompt="x")).text == "{}"
    assert (await rig.hook("PostToolBatch")).message_ids == (1,)


async def test_a_call_announced_by_a_sub_agent_is_known_as_its_own(rig):
    await rig.hook("PreToolUse", agent_id="a1", tool_use_id="toolu_1")
    await rig.hook("PreToolUse", tool_use_id="toolu_2")
    assert [rig.hooks.call(use(number)).sub_agent for number in (1, 2, 3)] == [True, False, False]
    assert rig.hooks.call(use(1)).tool_use == "toolu_1"


@pytest.mark.parametrize("meta", [{}, {session_hooks.TOOL_USE: 7}, {"progressToken": "toolu_1"}])
async def test_a_call_without_an_id_is_the_main_agents(rig, meta):
    await rig.hook("PreToolUse", agent_id="a1", tool_use_id="toolu_1")
    call = rig.hooks.call(meta)
    assert (call.tool_use, call.sub_agent) == ("", False)


async def test_only_so_many_calls_of_sub_agents_are_remembered(rig):
    for number in range(session_hooks.REMEMBERED + 1):
        await rig.hook("PreToolUse", agent_id="a1", tool_use_id=f"toolu_{number}")
    assert [rig.hooks.call(use(number)).sub_agent for number in (0, 1)] == [False, True]


# The session


async def test_the_sessions_id_is_passed_on_and_an_empty_one_is_not(rig):
    await rig.hook("Stop", session_id="s-1")
    await rig.hook("Stop", agent_id="a1", session_id="s-2")
    await rig.hook("Stop")
    assert rig.sessions == ["s-1", "s-2"]


async def test_hooks_that_were_heard_of_are_the_route_of_the_roster(rig):
    assert rig.ways.name == ""
    await rig.hook("Stop")
    assert rig.ways.name == "hook"


async def test_where_pushes_are_turned_off_hooks_are_answered_by_an_empty_object():
    assert await Hooks().told(event="UserPromptSubmit") == ("{}", ())
