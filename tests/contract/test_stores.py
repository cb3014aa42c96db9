"""What `broker.ports.Store` promises, held against every implementation."""

import asyncio
from dataclasses import replace

import pytest
from support.brokers import LEADER, NO_LIMITS, draft

from claude_peers.broker.ports import Claim, Mailbox
from claude_peers.core.delivery import TRANSITIONS, Event
from claude_peers.core.errors import DedupeConflictError, MailboxFullError
from claude_peers.core.limits import Limits
from claude_peers.core.models import UNREAD, Peer, PeerId, Presence, Process, State, Trust
from claude_peers.stores.retention import DEDUPE_WINDOW, KEEP_DEAD, KEEP_READ

pytestmark = pytest.mark.anyio

BOB = PeerId("bob")
ANN = PeerId("ann")
REACHED = {
    State.QUEUED: (),
    State.LEASED: (Event.LEASE,),
    State.PUSHED: (Event.PUSH,),
    State.SEEN: (Event.SEE,),
    State.ANSWERED: (Event.ANSWER,),
    State.DEAD: (Event.EXPIRE,),
}
"""How a message comes to each state that a store can be brought to from outside."""


async def accept(store, *args, limits=NO_LIMITS, now=0.0, **fields) -> int:
    return (await store.accept(draft(*args, **fields), limits, now=now)).message.id


async def brought_to(store, state: State) -> int:
    number = await accept(store)
    for event in REACHED[state]:
        assert await store.move(BOB, [number], event, now=0.0) == [number]
    return number


async def state_of(store, number: int) -> State:
    return (await store.message(number)).state


def ids(messages) -> list[int]:
    return [message.id for message in messages]


# Accepting


async def test_an_accepted_message_is_queued_as_it_was_written(store):
    written = draft("hê\n\0🦊", verified=True, reply_to=7)
    receipt = await store.accept(written, NO_LIMITS, now=0.0)
    message = receipt.message
    assert not receipt.duplicate
    assert (message.from_id, message.to_id, message.text) == ("ann", "bob", "hê\n\0🦊")
    assert (message.sent_at, message.verified, message.reply_to) == (written.sent_at, True, 7)
    assert (message.state, message.deliveries) == (State.QUEUED, 0)
    assert await store.message(message.id) == message


async def test_messages_get_ids_in_the_order_in_which_they_were_submitted(store):
    receipts = await asyncio.gather(
        *(store.accept(draft(str(n)), NO_LIMITS, now=0.0) for n in range(50))
    )
    numbers = [receipt.message.id for receipt in receipts]
    assert numbers == sorted(set(numbers))
    assert [message.text for message in await store.unread(BOB)] == [str(n) for n in range(50)]
    assert len({receipt.message.uid for receipt in receipts}) == 50


async def test_the_id_of_a_purged_message_is_not_given_again(store):
    last = await brought_to(store, State.SEEN)
    assert await store.tidy(now=KEEP_READ, most=10) == 1
    assert await accept(store) > last


async def test_a_later_call_does_not_overtake_an_earlier_one(store):
    first = await accept(store)
    handed, _, left = await asyncio.gather(
        store.hand_out(BOB, Claim(), now=0.0),
        store.accept(draft("late"), NO_LIMITS, now=0.0),
        store.unread(BOB),
    )
    assert ids(handed) == [first]
    assert [message.text for message in left] == ["late"]


# Sending again


async def test_the_same_key_and_body_are_the_same_message(store):
    first = await store.accept(draft(dedupe_key="k"), NO_LIMITS, now=0.0)
    again = await store.accept(draft(dedupe_key="k"), NO_LIMITS, now=DEDUPE_WINDOW - 1)
    assert again.duplicate
    assert again.message == first.message
    assert ids(await store.unread(BOB)) == [first.message.id]


async def test_a_duplicate_tells_what_has_become_of_the_message(store):
    number = await accept(store, dedupe_key="k")
    await store.move(BOB, [number], Event.SEE, now=0.0)
    again = await store.accept(draft(dedupe_key="k"), NO_LIMITS, now=1.0)
    assert again.duplicate and again.message.state is State.SEEN


async def test_a_duplicate_is_known_even_if_the_mailbox_is_full_meanwhile(store):
    full = Limits(mailbox=1)
    number = await accept(store, dedupe_key="k", limits=full)
    assert (await store.accept(draft(dedupe_key="k"), full, now=0.0)).message.id == number


@pytest.mark.parametrize(
    "other", [{"text": "other"}, {"to": "cid"}, {"reply_to": 1}], ids=lambda it: next(iter(it))
)
async def test_the_same_key_with_another_body_is_refused(store, other):
    await accept(store, dedupe_key="k")
    with pytest.raises(DedupeConflictError, match="k"):
        await store.accept(draft(**{"dedupe_key": "k", **other}), NO_LIMITS, now=0.0)
    assert (await store.ledger()).accepted == 1


async def test_a_key_belongs_to_its_sender(store):
    assert await accept(store, dedupe_key="k") != await accept(store, dedupe_key="k", sender="cid")


async def test_a_key_may_be_used_anew_after_its_window(store):
    first = await accept(store, dedupe_key="k")
    second = await accept(store, "other", dedupe_key="k", now=DEDUPE_WINDOW)
    assert first != second
    again = await store.accept(draft("other", dedupe_key="k"), NO_LIMITS, now=DEDUPE_WINDOW + 1)
    assert again.duplicate and again.message.id == second


async def test_many_keys_are_told_apart_also_when_old_ones_are_let_go(store):
    for n in range(10):
        await accept(store, str(n), dedupe_key=str(n), now=float(n))
    later = DEDUPE_WINDOW + 5
    await store.tidy(now=later, most=500)
    fresh = [await accept(store, str(n), dedupe_key=f"new {n}", now=later) for n in range(10)]
    kept = await store.accept(draft("9", dedupe_key="9"), NO_LIMITS, now=later)
    assert kept.duplicate
    again = [await accept(store, str(n), dedupe_key=f"new {n}", now=later) for n in range(10)]
    assert again == fresh


async def test_a_key_whose_message_was_purged_when_the_clock_stepped_may_be_used_anew(store):
    first = await brought_to(store, State.SEEN)
    second = await accept(store, dedupe_key="k")
    await store.move(BOB, [second], Event.SEE, now=0.0)
    assert await store.tidy(now=KEEP_READ, most=2) == 2
    receipt = await store.accept(draft(dedupe_key="k"), NO_LIMITS, now=1.0)
    assert not receipt.duplicate
    assert receipt.message.id > second > first


# Full mailboxes


async def test_a_mailbox_takes_as_many_messages_as_it_may_hold(store):
    limits = Limits(mailbox=2)
    await accept(store, limits=limits)
    await accept(store, limits=limits)
    with pytest.raises(MailboxFullError, match="2 unread"):
        await accept(store, limits=limits)
    await accept(store, to="cid", limits=limits)
    assert (await store.ledger()).accepted == 3


async def test_a_mailbox_takes_as_many_bytes_as_it_may_hold(store):
    limits = Limits(mailbox_bytes=5)
    await accept(store, "ääx", limits=limits)
    with pytest.raises(MailboxFullError):
        await accept(store, "x", limits=limits)


@pytest.mark.parametrize("state", UNREAD[:3])
async def test_what_is_unread_takes_room(store, state):
    await brought_to(store, state)
    assert await store.mailbox(BOB) == Mailbox(unread=1, size=2)
    with pytest.raises(MailboxFullError):
        await accept(store, limits=Limits(mailbox=1))


@pytest.mark.parametrize("state", [State.SEEN, State.ANSWERED, State.DEAD])
async def test_what_is_over_takes_no_room(store, state):
    await brought_to(store, state)
    assert await store.mailbox(BOB) == Mailbox()
    await accept(store, limits=Limits(mailbox=1))


async def test_a_mailbox_that_nobody_wrote_to_is_empty(store):
    assert await store.mailbox(BOB) == Mailbox()


# The life of a message


@pytest.mark.parametrize("event", Event)
@pytest.mark.parametrize("state", REACHED)
async def test_a_message_moves_along_the_table_and_nowhere_else(store, state, event):
    number = await brought_to(store, state)
    legal = TRANSITIONS.get((state, event))
    moved = await store.move(BOB, [number], event, now=1.0)
    assert moved == ([] if legal is None else [number])
    assert await state_of(store, number) is (legal or state)
    ledger = await store.ledger()
    assert ledger.balanced and ledger.states == {legal or state: 1}


async def test_messages_are_moved_only_in_their_own_mailbox(store):
    mine, other = await accept(store), await accept(store, to="cid")
    assert await store.move(BOB, [other, mine, 99, mine], Event.SEE, now=0.0) == [mine]
    assert await state_of(store, other) is State.QUEUED


async def test_the_moved_messages_are_told_in_order(store):
    numbers = [await accept(store) for _ in range(5)]
    assert await store.move(BOB, reversed(numbers), Event.PUSH, now=0.0) == numbers
    assert await store.move(BOB, iter(()), Event.SEE, now=0.0) == []


async def test_hand_outs_and_pushes_are_counted(store):
    number = await accept(store)
    for event in (Event.LEASE, Event.RETURN, Event.PUSH, Event.LEASE, Event.SEE):
        await store.move(BOB, [number], event, now=0.0)
    assert (await store.message(number)).deliveries == 3


@pytest.mark.parametrize("state", [*UNREAD[:3], State.SEEN])
async def test_an_answer_ends_the_message_it_answers(store, state):
    number = await brought_to(store, state)
    await accept(store, sender="bob", to="ann", reply_to=number)
    assert await state_of(store, number) is State.ANSWERED


async def test_only_the_recipient_can_answer(store):
    number = await accept(store)
    await accept(store, sender="cid", to="ann", reply_to=number)
    assert await state_of(store, number) is State.QUEUED


async def test_an_unknown_message_is_none(store):
    assert await store.message(1) is None


# Reading


async def test_unread_mail_is_what_is_queued_or_pushed_oldest_first(store):
    numbers = {state: await brought_to(store, state) for state in reversed(REACHED)}
    await accept(store, to="cid")
    assert ids(await store.unread(BOB)) == [numbers[State.PUSHED], numbers[State.QUEUED]]


async def test_unread_mail_can_be_read_in_pages(store):
    numbers = [await accept(store) for _ in range(5)]
    assert ids(await store.unread(BOB, after=numbers[1], limit=2)) == numbers[2:4]
    assert ids(await store.unread(BOB, after=numbers[-1])) == []


async def test_a_hand_out_leases_everything_that_is_offered(store):
    numbers = [await brought_to(store, state) for state in (State.QUEUED, State.PUSHED)]
    handed = await store.hand_out(BOB, Claim(), now=0.0)
    assert [(m.id, m.state, m.deliveries) for m in handed] == [
        (numbers[0], State.LEASED, 0),
        (numbers[1], State.LEASED, 1),
    ]
    assert await store.hand_out(BOB, Claim(), now=0.0) == []
    assert [await state_of(store, number) for number in numbers] == [State.LEASED] * 2


async def test_a_hand_out_takes_the_oldest_up_to_its_limit(store):
    numbers = [await accept(store) for _ in range(4)]
    claim = Claim(limit=2, exclude=(numbers[0],))
    assert ids(await store.hand_out(BOB, claim, now=0.0)) == numbers[1:3]
    assert ids(await store.unread(BOB)) == [numbers[0], numbers[3]]


async def test_a_hand_out_settles_the_one_before(store):
    seen, back, fresh = [await accept(store) for _ in range(3)]
    await store.hand_out(BOB, Claim(limit=2), now=0.0)
    handed = await store.hand_out(BOB, Claim(seen=(seen,), returned=(back,)), now=0.0)
    assert [(m.id, m.deliveries) for m in handed] == [(back, 1), (fresh, 0)]
    assert await state_of(store, seen) is State.SEEN


async def test_a_hand_out_settles_also_when_nothing_is_left_to_give(store):
    number = await brought_to(store, State.LEASED)
    assert await store.hand_out(BOB, Claim(seen=(number,)), now=0.0) == []
    assert await state_of(store, number) is State.SEEN


async def test_a_hand_out_leaves_other_mailboxes_alone(store):
    number = await accept(store, to="cid")
    assert await store.hand_out(BOB, Claim(seen=(number,)), now=0.0) == []
    assert await state_of(store, number) is State.QUEUED


# Time


@pytest.mark.parametrize("state", UNREAD[:3])
async def test_an_unread_message_dies_when_its_time_is_over(store, state):
    number = await brought_to(store, state)
    assert await store.tidy(now=999.9, most=10) == 0
    assert await store.tidy(now=1000.0, most=10) == 1
    assert await state_of(store, number) is State.DEAD
    assert await store.tidy(now=1000.0, most=10) == 0
    assert await store.mailbox(BOB) == Mailbox()


@pytest.mark.bug("B4-15")
async def test_a_message_past_its_time_is_not_handed_out_although_nobody_tidied(store):
    await accept(store, "late", expires_at=10.0)
    await accept(store, "in time", expires_at=11.0)
    handed = await store.hand_out(BOB, Claim(), now=10.0)
    assert [message.text for message in handed] == ["in time"]


@pytest.mark.parametrize(
    ("state", "kept"),
    [(State.SEEN, KEEP_READ), (State.ANSWERED, KEEP_READ), (State.DEAD, KEEP_DEAD)],
)
async def test_what_is_over_is_kept_for_a_while(store, state, kept):
    number = await brought_to(store, state)
    assert await store.tidy(now=kept - 1, most=10) == 0
    assert await store.tidy(now=kept, most=10) == 1
    assert await store.message(number) is None
    ledger = await store.ledger()
    assert ledger.balanced and (ledger.accepted, ledger.purged) == (1, 1)


async def test_tidying_touches_no_more_rows_than_it_may(store):
    for _ in range(3):
        await accept(store)
        await brought_to(store, State.SEEN)
        await brought_to(store, State.DEAD)
    touched = []
    while not touched or touched[-1]:
        touched.append(await store.tidy(now=KEEP_DEAD, most=2))
        assert (await store.ledger()).balanced
    assert max(touched) == 2
    assert sum(touched) == 9
    assert (await store.ledger()).states == {State.DEAD: 3}


async def test_tidying_forgets_keys_that_name_nothing_any_more(store):
    for number in range(3):
        await accept(store, dedupe_key=f"k{number}", expires_at=1e9)
    assert await store.tidy(now=DEDUPE_WINDOW - 1, most=2) == 0
    assert [await store.tidy(now=DEDUPE_WINDOW, most=2) for _ in range(3)] == [2, 1, 0]


# Peers


def peer(peer_id: str, **fields) -> Peer:
    return Peer(id=PeerId(peer_id), name=f"name-{peer_id}", **fields)


async def test_peers_are_told_in_the_order_of_their_registration(store):
    for peer_id in ("c", "a", "b"):
        await store.save_peer(peer(peer_id))
    await store.save_peer(peer("a", summary="changed"))
    assert [(p.id, p.summary) for p in await store.peers()] == [
        ("c", ""),
        ("a", "changed"),
        ("b", ""),
    ]


async def test_a_peer_is_kept_with_everything_that_is_known(store):
    known = peer(
        "a",
        process=Process(pid=4, started="then"),
        pid=4,
        boot="boot",
        host="host",
        cwd="/r/src",
        git_root="/r",
        repo="/r/.git",
        tty="pts/3",
        summary="works",
        client="claude-code",
        route="channel",
        trust=Trust.TOKEN,
        presence=Presence.AWAY,
        token_hash="f00",
        keys=("live:1", "resume:2"),
        registered_at="then",
        last_seen="now",
    )
    await store.save_peer(known)
    assert await store.peers() == [known]
    bare = replace(peer("a"), name="bare")
    await store.save_peer(bare)
    assert await store.peers() == [bare]


async def test_the_mail_of_a_forgotten_peer_stays(store):
    number = await accept(store)
    for peer_id in ("ann", "bob", "cid"):
        await store.save_peer(peer(peer_id))
    await store.forget_peers(iter((BOB, PeerId("nobody"), ANN)))
    assert [p.id for p in await store.peers()] == ["cid"]
    assert ids(await store.unread(BOB)) == [number]


# Leading


async def test_each_leader_has_a_larger_epoch(store):
    first = await store.take_office(LEADER, now=0.0)
    assert await store.take_office(replace(LEADER, pid=2), now=0.0) > first > 0


async def test_leases_end_with_the_epoch(store):
    numbers = {state: await brought_to(store, state) for state in REACHED}
    await store.take_office(LEADER, now=0.0)
    for state, number in numbers.items():
        expected = State.QUEUED if state is State.LEASED else state
        assert await state_of(store, number) is expected
    assert (await store.message(numbers[State.LEASED])).deliveries == 1
    assert (await store.ledger()).balanced


async def test_everything_accepted_is_accounted_for(store):
    numbers = [await accept(store, str(n), dedupe_key=str(n)) for n in range(6)]
    await accept(store, "0", dedupe_key="0")
    await store.hand_out(BOB, Claim(limit=2), now=0.0)
    await store.move(BOB, numbers[:1], Event.SEE, now=0.0)
    await store.move(BOB, numbers[2:3], Event.PUSH, now=0.0)
    await store.move(BOB, numbers[3:4], Event.EXPIRE, now=0.0)
    await accept(store, "re", sender="bob", to="ann", reply_to=numbers[4])
    ledger = await store.ledger()
    assert ledger.balanced and ledger.accepted == 7
    assert ledger.states == {
        State.SEEN: 1,
        State.LEASED: 1,
        State.PUSHED: 1,
        State.DEAD: 1,
        State.ANSWERED: 1,
        State.QUEUED: 2,
    }


async def test_what_was_accepted_under_a_key_is_found_by_it(store):
    first = (await store.accept(draft(dedupe_key="k"), NO_LIMITS, now=0.0)).message
    assert await store.accepted(draft(dedupe_key="k"), now=1.0) == first
    assert await store.accepted(draft(dedupe_key="other"), now=1.0) is None
    assert await store.accepted(draft(dedupe_key="k"), now=DEDUPE_WINDOW) is None
    with pytest.raises(DedupeConflictError):
        await store.accepted(draft("another text", dedupe_key="k"), now=1.0)


async def test_a_reply_is_told_with_what_it_replies_to_and_answers_only_its_sender(store):
    first = (await store.accept(draft(to="bob", sender="ann"), NO_LIMITS, now=0.0)).message
    told = await store.accept(draft(to="cid", sender="bob", reply_to=first.id), NO_LIMITS, now=1.0)
    assert told.replied_to is not None and told.replied_to.id == first.id
    assert (await store.message(first.id)).state is State.SEEN
    await store.accept(draft(to="ann", sender="bob", reply_to=first.id), NO_LIMITS, now=2.0)
    assert (await store.message(first.id)).state is State.ANSWERED
