"""Asking what became of messages."""

import pytest

from claude_peers.tools.receipts import LETTERS, get_dead_letters, message_status
from claude_peers.tools.registry import arguments

pytestmark = pytest.mark.anyio
STORY = {"id": 7, "from_id": "me000000", "to_id": "abcd1234", "sent_at": "then", "state": "queued"}


async def test_the_broker_is_asked_for_the_messages_story(member, client):
    client.answers["/message-status"] = STORY
    text = await message_status.run(member, message_id=7)
    assert text.startswith("Message 7 from me000000 to abcd1234\n")
    assert client.asked == [("/message-status", {"message_id": 7})]


@pytest.mark.parametrize("given", [{"message_id": "7"}, {"id": 7}, {"message_id": 7.0}])
def test_a_number_may_come_as_models_like_to_give_it(given):
    assert arguments(message_status, given) == {"message_id": 7}


async def test_ones_own_dead_letters_are_shown(member, client):
    client.answers["/dead-letters"] = {
        "dead_letters": [
            {"id": 3, "from_id": "abcd1234", "sent_at": "then", "text": "hi", "reason": "late"}
        ]
    }
    text = await get_dead_letters.run(member)
    assert "From abcd1234 (then) · message_id 3 — late:\nhi" in text
    assert client.asked == [("/dead-letters", {"id": "me000000", "limit": 10})]


@pytest.mark.parametrize(("limit", "asked"), [(0, 1), (-5, 1), (7, 7), (10**9, LETTERS)])
async def test_a_limit_is_kept_within_bounds(member, client, limit, asked):
    client.answers["/dead-letters"] = {"dead_letters": []}
    assert await get_dead_letters.run(member, limit=limit) == "No dead letters."
    assert client.asked[0][1]["limit"] == asked
