"""What every store promises about a message's story, and about who is told what."""

import asyncio

import pytest
from support.brokers import LEADER, NO_LIMITS, draft

from claude_peers.broker.ports import Claim, Mailbox
from claude_peers.core.delivery import DELIVERIES, EXPIRED, Event, given_up
from claude_peers.core.errors import HopLimitError, MailboxFullError
from claude_peers.core.limits import HOPS, Limits
from claude_peers.core.models import PeerId, State
from claude_peers.stores.retention import KEEP_DEAD, KEEP_READ

pytestmark = pytest.mark.anyio

ANN, BOB, CID = PeerId("ann"), PeerId("bob"), PeerId("cid")


async def accept(store, *args, now=0.0, **fields) -> int:
    return (await store.accept(draft(*args, **fields), NO_LIMITS, now=now)).message.id


async def steps(store, number: int) -> list[tuple[float, str, str]]:
    return [(step.at, step.event, step.via) for step in (await store.stories([number]))[0].steps]


async def events(store, number: int) -> list[str]:
    return [event for _, event, _ in await steps(store, number)]


async def balanced(store) -> dict[State, int]:
    ledger = await store.ledger()
    assert ledger.balanced
    return ledger.states


def ids(messages) -> list[int]:
    return [message.id for message in messages]


# Steps


async def test_a_message_begins_without_a_step(store):
    number = await accept(store)
    (story,) = await store.stories([number])
    assert (story.message, story.steps) == (await store.message(number), ())


async def test_nobody_has_no_story(store):
    assert await store.stories([1]) == []


async def test_stories_are_told_by_id_and_once_and_only_those_that_there_are(store):
    first, second = await accept(store), await accept(store)
    found = await store.stories([second, 99, first, second])
    assert [story.message.id for story in found] == [first, second]
    assert await store.stories([]) == []


async def test_each_event_is_a_step_with_its_time_and_its_way(store):
    number = await accept(store)
    await store.hand_out(BOB, Claim(via="hook"), now=1.5)
    await store.move(BOB, [number], Event.RETURN, now=2.5, via="the connection broke")
    await store.move(BOB, [number], Event.PUSH, now=3.5, via="rewake")
    await store.move(BOB, [number], Event.SEE, now=4.5, via="check_messages")
    answer = await accept(store, sender="bob", to="ann", reply_to=number, now=5.5)
    assert await steps(store, number) == [
        (1.5, "lease", "hook"),
        (2.5, "return", "the connection broke"),
        (3.5, "push", "rewake"),
        (4.5, "see", "check_messages"),
        (5.5, "answer", f"message {answer}"),
    ]


async def test_times_of_today_keep_their_milliseconds(store):
    number = await accept(store)
    await store.move(BOB, [number], Event.SEE, now=1_795_000_000.125)
    ((at, _, _),) = await steps(store, number)
    assert at == pytest.approx(1_795_000_000.125, abs=0.001)


async def test_what_is_not_legal_leaves_no_step(store):
    number = await accept(store)
    assert await store.move(BOB, [number], Event.RETURN, now=1.0) == []
    assert await store.move(CID, [number], Event.SEE, now=1.0) == []
    assert await steps(store, number) == []


@pytest.mark.parametrize("via", ['"\\', "a\nb", "\u2028\x85\x0b", "", "🦊", "[1]"], ids=ascii)
async def test_a_way_is_kept_as_it_was_told(store, via):
    number = await accept(store)
    await store.move(BOB, [number], Event.PUSH, now=0.0, via=via)
    await store.move(BOB, [number], Event.SEE, now=0.0, via=via)
    assert [step[2] for step in await steps(store, number)] == [via, via]


async def test_a_hand_out_tells_how_the_one_before_was_settled(store):
    seen, back = await accept(store), await accept(store)
    await store.hand_out(BOB, Claim(), now=1.0)
    await store.hand_out(BOB, Claim(seen=(seen,), returned=(back,), via="poll"), now=2.0)
    assert await events(store, seen) == ["lease", "see"]
    assert await events(store, back) == ["lease", "return", "lease"]


async def test_a_take_over_is_a_step_of_what_was_leased(store):
    leased, queued = await accept(store), await accept(store)
    await store.hand_out(BOB, Claim(limit=1), now=1.0)
    await store.take_office(LEADER, now=2.0)
    assert (await steps(store, leased))[1:] == [(2.0, "return", "another broker leads")]
    assert await steps(store, queued) == []


async def test_a_story_ends_with_its_message(store):
    number = await accept(store)
    await store.move(BOB, [number], Event.SEE, now=0.0)
    assert await store.tidy(now=KEEP_READ, most=10) == 1
    assert await store.stories([number]) == []
    assert (await store.ledger()).purged == 1


# Dead letters


async def test_a_dead_letter_says_that_nobody_read_it_in_time(store):
    number = await accept(store)
    await store.tidy(now=1000.0, most=10)
    message = await store.message(number)
    assert (message.state, message.reason) == (State.DEAD, EXPIRED)
    assert message.ended_at == 1000.0
    assert await steps(store, number) == [(1000.0, "expire", EXPIRED)]


async def handed_out(store, number: int, times: int) -> None:
    for _ in range(times):
        assert ids(await store.hand_out(BOB, Claim(), now=1.0)) == [number]
        await store.move(BOB, [number], Event.RETURN, now=2.0)


async def assert_given_up(store, number: int, deliveries: int = DELIVERIES) -> None:
    message, why = await store.message(number), given_up(deliveries)
    assert (message.state, message.reason) == (State.DEAD, why)
    assert (message.deliveries, message.ended_at) == (deliveries, 3.0)
    assert (await steps(store, number))[-1] == (3.0, "give_up", why)
    assert await balanced(store) == {State.DEAD: 1}
    assert await store.mailbox(BOB) == Mailbox()
    assert ids(await store.dead_letters(BOB, limit=5)) == [number]


async def test_what_was_handed_out_twenty_times_is_dead_instead_of_handed_out_again(store):
    assert DELIVERIES == 20
    number = await accept(store)
    await handed_out(store, number, DELIVERIES)
    assert await store.hand_out(BOB, Claim(), now=3.0) == []
    await assert_given_up(store, number)


async def test_what_was_pushed_twenty_times_is_dead_instead_of_pushed_again(store):
    number = await accept(store)
    for _ in range(DELIVERIES):
        assert await store.move(BOB, [number], Event.PUSH, now=1.0) == [number]
    assert await store.move(BOB, [number], Event.PUSH, now=3.0) == []
    await assert_given_up(store, number)


async def test_hand_outs_and_pushes_count_together(store):
    number = await accept(store)
    await handed_out(store, number, DELIVERIES - 1)
    await store.move(BOB, [number], Event.PUSH, now=1.0)
    assert await store.hand_out(BOB, Claim(), now=3.0) == []
    await assert_given_up(store, number)


@pytest.mark.parametrize("most", [1, 3])
async def test_the_user_says_how_often_a_message_is_handed_out(store, most):
    store.deliveries = most
    number = await accept(store)
    await handed_out(store, number, most)
    assert await store.hand_out(BOB, Claim(), now=3.0) == []
    await assert_given_up(store, number, most)


async def test_what_was_handed_out_more_often_than_is_allowed_now_says_how_often_it_was(store):
    number = await accept(store)
    await handed_out(store, number, 5)
    store.deliveries = 3
    assert await store.move(BOB, [number], Event.PUSH, now=3.0) == []
    await assert_given_up(store, number, 5)


async def test_evidence_after_the_last_hand_out_still_counts(store):
    number = await accept(store)
    await handed_out(store, number, DELIVERIES - 1)
    await store.hand_out(BOB, Claim(), now=1.0)
    assert await store.move(BOB, [number], Event.SEE, now=2.0) == [number]
    assert await balanced(store) == {State.SEEN: 1}


async def test_one_that_is_given_up_takes_nothing_with_it(store):
    worn, fresh = await accept(store), await accept(store)
    for _ in range(DELIVERIES):
        await store.move(BOB, [worn], Event.PUSH, now=1.0)
    await accept(store, to="cid")
    assert ids(await store.hand_out(BOB, Claim(), now=3.0)) == [fresh]
    assert await balanced(store) == {State.DEAD: 1, State.LEASED: 1, State.QUEUED: 1}


async def test_what_is_given_up_while_it_is_handed_out_is_dead_for_the_reason_told(store):
    number = await accept(store)
    await store.hand_out(BOB, Claim(), now=1.0)
    assert await store.move(BOB, [number], Event.GIVE_UP, now=2.0, via="not taken") == [number]
    assert [each.reason for each in await store.dead_letters(BOB, limit=5)] == ["not taken"]


async def test_dead_letters_are_told_newest_first(store):
    numbers = [await accept(store, to=to) for to in ("bob", "cid", "bob", "cid", "bob")]
    alive = await accept(store, expires_at=5000.0)
    await store.tidy(now=1000.0, most=10)
    assert ids(await store.dead_letters(BOB, limit=9)) == [numbers[4], numbers[2], numbers[0]]
    assert ids(await store.dead_letters(BOB, limit=2)) == [numbers[4], numbers[2]]
    assert ids(await store.dead_letters(limit=9)) == numbers[::-1]
    assert ids(await store.dead_letters(limit=2)) == numbers[:2:-1]
    assert await store.dead_letters(ANN, limit=9) == []
    assert alive not in ids(await store.dead_letters(limit=9))


async def test_the_history_shows_every_message_in_the_order_of_acceptance(store):
    numbers = [await accept(store, to=to) for to in ("bob", "cid", "bob", "cid")]
    await store.move(BOB, numbers[:1], Event.SEE, now=0.0)
    assert ids(await store.history(limit=9)) == numbers
    assert ids(await store.history(after=numbers[0], limit=2)) == numbers[1:3]
    assert await store.history(after=numbers[-1], limit=2) == []


async def test_the_history_can_be_read_from_its_end_page_by_page(store):
    numbers = [await accept(store) for _ in range(5)]
    assert ids(await store.history(limit=2, newest=True)) == numbers[3:]
    assert ids(await store.history(before=numbers[3], limit=2, newest=True)) == numbers[1:3]
    assert ids(await store.history(before=numbers[1], limit=2, newest=True)) == numbers[:1]
    assert await store.history(before=numbers[0], limit=2, newest=True) == []


async def test_the_history_between_two_messages_is_without_them(store):
    numbers = [await accept(store) for _ in range(5)]
    between = {"after": numbers[0], "before": numbers[4]}
    assert ids(await store.history(**between, limit=9)) == numbers[1:4]
    assert ids(await store.history(**between, limit=2)) == numbers[1:3]
    assert ids(await store.history(**between, limit=2, newest=True)) == numbers[2:4]


# Who waits for an answer


async def owed(store, **which) -> list[int]:
    return ids(await store.owed(limit=9, **which))


async def test_a_request_is_owed_an_answer_from_its_time_on(store):
    late = await accept(store, owed_at=20.0)
    soon = await accept(store, owed_at=10.0, to="cid")
    await accept(store)
    assert await owed(store, now=9.0) == []
    assert await owed(store, now=10.0) == [soon]
    assert await owed(store, now=20.0) == [late, soon]
    assert len(await store.owed(now=20.0, limit=1)) == 1


async def test_what_one_peer_owes_is_known_before_its_time(store):
    first, second = await accept(store, owed_at=20.0), await accept(store, owed_at=10.0)
    await accept(store, owed_at=10.0, to="cid")
    await accept(store)
    assert await owed(store, by=BOB) == [first, second]
    assert len(await store.owed(by=BOB, limit=1)) == 1
    assert await owed(store, by=ANN) == []


async def test_an_answer_is_owed_no_more(store):
    number = await accept(store, owed_at=10.0)
    await accept(store, sender="bob", to="ann", reply_to=number)
    assert await owed(store, now=10.0) == await owed(store, by=BOB) == []


async def test_being_read_is_no_answer(store):
    number = await accept(store, owed_at=10.0)
    await store.move(BOB, [number], Event.SEE, now=0.0)
    assert await owed(store, now=10.0) == await owed(store, by=BOB) == [number]


async def test_a_request_that_was_read_is_kept_until_its_sender_has_been_told(store):
    number = await accept(store, owed_at=2 * KEEP_READ)
    await store.move(BOB, [number], Event.SEE, now=0.0)
    assert await store.tidy(now=2 * KEEP_READ, most=10) == 0
    assert await owed(store, now=2 * KEEP_READ) == [number]
    await tell(store, number)
    await store.tidy(now=2 * KEEP_READ, most=10)
    assert await store.message(number) is None
    await balanced(store)


async def test_the_dead_owe_nothing(store):
    expired = await accept(store, owed_at=1000.0)
    await store.tidy(now=1000.0, most=10)
    worn = await accept(store, owed_at=1000.0, expires_at=5000.0)
    for _ in range(DELIVERIES + 1):
        await store.move(BOB, [worn], Event.PUSH, now=0.0)
    lost = await accept(store, owed_at=1000.0, expires_at=5000.0)
    await store.move(BOB, [lost], Event.EXPIRE, now=0.0)
    assert set((await store.ledger()).states) == {State.DEAD}
    assert await owed(store, now=9000.0) == await owed(store, by=BOB) == []
    assert expired < worn < lost


async def tell(store, request: int, *, limits=NO_LIMITS):
    told = draft("no answer", sender="claude-peers", to="ann", notice_of=request)
    return await store.accept(told, limits, now=0.0)


async def test_a_sender_is_told_once(store):
    number = await accept(store, owed_at=10.0)
    first, second = await asyncio.gather(tell(store, number), tell(store, number))
    assert (first.duplicate, second.duplicate) == (False, True)
    assert second.message.id == number
    assert ids(await store.unread(ANN)) == [first.message.id]
    assert await owed(store, now=10.0) == []


async def test_an_answer_in_the_last_moment_saves_the_notice(store):
    number = await accept(store, owed_at=10.0)
    (request,) = await store.owed(now=10.0, limit=1)
    answer = await accept(store, sender="bob", to="ann", reply_to=request.id)
    assert (await tell(store, number)).duplicate
    assert ids(await store.unread(ANN)) == [answer]


async def test_a_notice_that_was_refused_can_be_given_later(store):
    number = await accept(store, owed_at=10.0)
    await accept(store, sender="cid", to="ann")
    with pytest.raises(MailboxFullError):
        await tell(store, number, limits=Limits(mailbox=1))
    assert await owed(store, now=10.0) == [number]
    assert not (await tell(store, number)).duplicate


async def test_a_notice_about_what_is_forgotten_is_a_message_like_others(store):
    assert not (await tell(store, 99)).duplicate


# Senders that are muted


async def test_what_is_held_is_accepted_and_not_offered(store):
    held = await accept(store, held=True)
    assert (await store.message(held)).state is State.HELD
    assert await store.unread(BOB) == await store.hand_out(BOB, Claim(), now=0.0) == []
    assert await store.move(BOB, [held], Event.PUSH, now=0.0) == []
    assert await store.mailbox(BOB) == Mailbox(unread=1, size=2)
    assert await balanced(store) == {State.HELD: 1}


async def test_what_is_held_of_one_sender_is_admitted_in_order(store):
    first = await accept(store, held=True)
    other = await accept(store, held=True, sender="cid")
    open_ = await accept(store)
    second = await accept(store, held=True)
    elsewhere = await accept(store, held=True, to="cid")
    admitted = await store.admit(BOB, "ann", now=7.0)
    assert ids(admitted) == [first, second]
    assert {message.state for message in admitted} == {State.QUEUED}
    assert ids(await store.unread(BOB)) == [first, open_, second]
    assert await steps(store, first) == [(7.0, "admit", "unmute")]
    assert [(await store.message(n)).state for n in (other, elsewhere)] == [State.HELD] * 2
    assert await store.admit(BOB, "ann", now=8.0) == []
    assert await balanced(store) == {State.HELD: 2, State.QUEUED: 3}


@pytest.mark.parametrize(("event", "state"), [(Event.SEE, State.SEEN), (Event.EXPIRE, State.DEAD)])
async def test_what_is_held_can_end(store, event, state):
    held = await accept(store, held=True)
    assert await store.move(BOB, [held], event, now=0.0) == [held]
    assert await balanced(store) == {state: 1}
    assert await store.mailbox(BOB) == Mailbox()


async def test_what_is_held_can_be_answered_and_dies_in_its_time(store):
    answered, dead = await accept(store, held=True), await accept(store, held=True)
    await accept(store, sender="bob", to="ann", reply_to=answered, expires_at=9e9)
    await store.tidy(now=1000.0, most=10)
    states = [(await store.message(n)).state for n in (answered, dead)]
    assert states == [State.ANSWERED, State.DEAD]


# Mail that follows a name


async def test_mail_by_name_goes_to_the_next_holder_and_mail_by_id_stays(store):
    by_name = await accept(store, "abc", to_name="main")
    by_id = await accept(store)
    other = await accept(store, to_name="rest")
    assert await store.readdress(BOB, CID, "main", now=7.0) == 1
    message = await store.message(by_name)
    assert (message.to_id, message.to_name, message.inherited) == (CID, "main", True)
    assert await steps(store, by_name) == [(7.0, "readdress", CID)]
    assert ids(await store.unread(CID)) == [by_name]
    assert ids(await store.unread(BOB)) == [by_id, other]
    assert await store.mailbox(CID) == Mailbox(unread=1, size=3)
    assert await store.mailbox(BOB) == Mailbox(unread=2, size=4)
    assert await store.readdress(BOB, CID, "main", now=8.0) == 0


async def test_inherited_mail_keeps_its_order_among_what_the_heir_has(store):
    first = await accept(store, to_name="main")
    own = await accept(store, to="cid")
    second = await accept(store, to_name="main")
    await store.readdress(BOB, CID, "main", now=0.0)
    assert ids(await store.hand_out(CID, Claim(), now=0.0)) == [first, own, second]
    assert await store.move(BOB, [first, second], Event.SEE, now=0.0) == []


async def test_what_is_in_hand_or_held_is_offered_to_the_heir(store):
    leased = await accept(store, to_name="main")
    await store.hand_out(BOB, Claim(), now=0.0)
    pushed = await accept(store, to_name="main")
    await store.move(BOB, [pushed], Event.PUSH, now=0.0)
    held = await accept(store, to_name="main", held=True)
    assert await store.readdress(BOB, CID, "main", now=0.0) == 3
    assert ids(await store.unread(CID)) == [leased, pushed, held]
    assert await store.move(BOB, [leased], Event.RETURN, now=0.0) == []
    assert await balanced(store) == {State.QUEUED: 3}
    assert await store.mailbox(BOB) == Mailbox()


async def test_what_is_over_is_not_inherited(store):
    seen = await accept(store, to_name="main")
    await store.move(BOB, [seen], Event.SEE, now=0.0)
    assert await store.readdress(BOB, CID, "main", now=0.0) == 0
    assert (await store.message(seen)).to_id == BOB


async def test_mailboxes_are_right_to_the_end_of_inherited_mail(store):
    number = await accept(store, to_name="main", owed_at=5.0)
    await store.readdress(BOB, CID, "main", now=0.0)
    assert await owed(store, by=CID) == [number]
    await store.tidy(now=1000.0, most=10)
    assert await store.mailbox(CID) == await store.mailbox(BOB) == Mailbox()
    assert ids(await store.dead_letters(CID, limit=5)) == [number]
    await store.tidy(now=1000.0 + KEEP_DEAD, most=10)
    assert (await store.ledger()).purged == 1


# Threads


async def chain(store, length: int) -> list[int]:
    """Let ann and bob answer each other so often; return all messages."""
    numbers = [await accept(store)]
    for hop in range(length):
        sender, to = ("bob", "ann") if hop % 2 == 0 else ("ann", "bob")
        numbers.append(await accept(store, sender=sender, to=to, reply_to=numbers[-1]))
    return numbers


async def test_answers_are_counted_along_their_thread(store):
    numbers = await chain(store, 3)
    found = [await store.message(number) for number in numbers]
    assert [message.hops for message in found] == [0, 1, 2, 3]
    assert [message.thread for message in found] == [None, *[numbers[0]] * 3]


async def test_an_answer_to_what_is_forgotten_begins_anew(store):
    message = await store.message(await accept(store, reply_to=99))
    assert (message.reply_to, message.hops, message.thread) == (99, 0, None)


async def test_a_thread_ends_after_so_many_answers_to_answers(store):
    assert HOPS == 20
    numbers = await chain(store, HOPS)
    before = await store.ledger()
    with pytest.raises(HopLimitError):
        await accept(store, sender="bob", to="ann", reply_to=numbers[-1])
    assert await store.ledger() == before
    assert (await store.message(numbers[-1])).state is State.QUEUED
    await accept(store, sender="bob", to="ann")


async def test_the_last_answer_of_a_thread_can_be_sent_again(store):
    numbers = await chain(store, HOPS - 1)
    last = draft(sender="bob", to="ann", reply_to=numbers[-1], dedupe_key="k")
    first = await store.accept(last, NO_LIMITS, now=0.0)
    assert first.message.hops == HOPS
    again = await store.accept(last, NO_LIMITS, now=1.0)
    assert (again.duplicate, again.message.id) == (True, first.message.id)


async def test_a_receipt_tells_how_full_the_mailbox_is(store):
    first = await store.accept(draft("abc", dedupe_key="k"), NO_LIMITS, now=0.0)
    await accept(store, held=True)
    again = await store.accept(draft("abc", dedupe_key="k"), NO_LIMITS, now=0.0)
    assert [(each.unread, each.size) for each in (first, again)] == [(1, 3), (2, 5)]
