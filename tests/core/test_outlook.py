"""What senders are told, in words."""

import pytest

from claude_peers.core.delivery import DIRECT_TTL, MOST_TTL, OWED, lifetime, patience
from claude_peers.core.errors import HopLimitError
from claude_peers.core.identity import more_keys, same_agent, shares_key
from claude_peers.core.limits import HOPS, KEYS, Limits, next_hop
from claude_peers.core.models import Message, Peer, PeerId, Presence, Receipt, State
from claude_peers.core.outlook import next_step, warnings


def peer(**fields) -> Peer:
    return Peer(id=PeerId("b0b"), **{"name": "bob", "route": "rewake", **fields})


def message(**fields) -> Message:
    given = {"id": 7, "uid": "u", "from_id": "ann", "text": "x", "sent_at": "", **fields}
    return Message(to_id=PeerId("b0b"), **given)


@pytest.mark.parametrize(
    ("state", "told"),
    [
        (State.LEASED, "It was handed to bob's client and counts as read once"),
        (State.PUSHED, "It was given to bob's client over rewake; no sign yet"),
        (State.HELD, "bob has muted this sender"),
        (State.SEEN, "Nothing: bob has read it."),
        (State.ANSWERED, "Nothing: bob has answered it."),
        (State.DEAD, "Nothing by itself. Send it again: claude-peers resend 7"),
        (State.QUEUED, "It is offered to bob over rewake"),
    ],
)
def test_each_state_has_a_next_step(state, told):
    assert next_step(message(state=state), peer()).startswith(told)


@pytest.mark.parametrize(
    ("recipient", "named", "told"),
    [
        (None, None, "b0b is gone for good: it will die."),
        (peer(presence=Presence.DEPARTED), None, "bob is gone for good: it will die."),
        (peer(presence=Presence.DEPARTED), "bob", "the next holder of that name, then dies."),
        (peer(presence=Presence.AWAY), None, "until bob comes back."),
        (peer(route=""), None, "until bob calls check_messages."),
        (peer(route="", activity="busy"), None, "until bob is done, or calls one of our tools."),
    ],
)
def test_a_queued_message_waits_for_something(recipient, named, told):
    assert next_step(message(to_name=named), recipient).endswith(told)


def test_a_pushed_message_to_who_has_no_route_any_more_is_told_without_one():
    assert "over its route;" in next_step(message(state=State.PUSHED), peer(route=""))


def test_nothing_is_warned_of_where_a_busy_agent_may_have_a_route_when_it_is_done():
    busy = peer(route="", activity="busy")
    assert warnings(busy, Receipt(message=message(), unread=1), limits=Limits()) == []


def test_nothing_is_warned_of_where_nothing_is_wrong():
    assert warnings(peer(), Receipt(message=message(), unread=900), limits=Limits()) == []


@pytest.mark.parametrize(
    "full", [{"unread": 901}, {"size": 8 * 1024 * 1024}], ids=lambda it: next(iter(it))
)
def test_a_mailbox_is_nearly_full_above_nine_tenths(full):
    receipt = Receipt(message=message(), **full)
    (warning,) = warnings(peer(), receipt, limits=Limits())
    assert "nearly full" in warning
    assert warnings(peer(), receipt, limits=Limits(mailbox=0)) == []


@pytest.mark.parametrize(
    ("wanted", "lives", "waits"),
    [(None, 9e9, OWED), (0, 9e9, OWED), (-1, 9e9, OWED), (5, 9e9, 5), (5, 3, 3), (None, 3, 3)],
)
def test_a_sender_waits_as_long_as_it_says_and_no_longer_than_the_message_lives(
    wanted, lives, waits
):
    assert patience(wanted, lives) == waits


@pytest.mark.parametrize(
    ("wanted", "lives"),
    [(None, DIRECT_TTL), (0, DIRECT_TTL), (-1, DIRECT_TTL), (5, 5), (9e9, MOST_TTL)],
)
def test_a_message_lives_as_long_as_its_sender_says_up_to_a_week(wanted, lives):
    assert lifetime(wanted) == lives


def test_a_thread_has_so_many_hops():
    assert next_hop(HOPS - 1) == HOPS
    with pytest.raises(HopLimitError, match="without reply_to"):
        next_hop(HOPS)


def test_further_keys_push_out_the_oldest_but_not_the_live_one():
    known = ("live:1", *(f"resume:{n}" for n in range(KEYS - 1)))
    assert more_keys(("resume:new",), known) == ("live:1", "resume:new", *known[1:-1])
    assert more_keys(("resume:1",), ("resume:2",)) == ("resume:1", "resume:2")
    assert more_keys((), known) == known


def test_an_agent_is_the_same_only_by_its_live_key():
    there = [peer(keys=("resume:1", "live:1"))]
    assert same_agent(("resume:1",), there) is None
    assert same_agent(("live:2",), there) is None
    assert same_agent(("resume:1", "live:1"), there) is there[0]
    assert shares_key(("resume:1",), there[0]) and not shares_key((), there[0])


@pytest.mark.parametrize(
    ("replied_to", "told"),
    [
        (None, ["There is no message 3 to reply to."]),
        (message(from_id="cid"), ["Message 3 came from cid, which does not get this:"]),
        (message(from_id="b0b"), []),
    ],
)
def test_a_sender_is_told_that_a_reply_answers_nothing(replied_to, told):
    receipt = Receipt(message=message(reply_to=3), unread=1, replied_to=replied_to)
    said = warnings(peer(), receipt, limits=Limits())
    assert [text[: len(start)] for text, start in zip(said, told, strict=True)] == told


def test_a_message_that_was_there_before_is_told_nothing_new_about_its_reply():
    receipt = Receipt(message=message(reply_to=3), duplicate=True, unread=1)
    assert warnings(peer(), receipt, limits=Limits()) == []
