"""Requests about the broker itself."""

from typing import TYPE_CHECKING, Any

from claude_peers.broker.operations.registry import operation
from claude_peers.core.models import Caller
from claude_peers.wire.letters import letter_view, with_names
from claude_peers.wire.records import (
    HistoryRequest,
    PeerRequest,
    StepDownRequest,
)

if TYPE_CHECKING:
    from claude_peers.broker.broker import Broker
    from claude_peers.wire import answers, user_answers


HISTORY = 100
"""Messages in one answer: at their longest they are 25 MB."""


@operation("/admin/step-down", StepDownRequest, user=True)
async def step_down(
    broker: "Broker", caller: Caller, request: StepDownRequest
) -> "user_answers.SteppedDown":
    """Let another node lead; needs proof of the user's secret."""
    del caller
    broker.step_down(request.hold_ms / 1000.0)
    return {"ok": True, "epoch": broker.epoch}


@operation("/history", HistoryRequest, user=True)
async def history(broker: "Broker", caller: Caller, request: HistoryRequest) -> "answers.History":
    """Return messages of all mailboxes, oldest first; needs proof of the user's secret."""
    del caller
    limit = max(1, min(request.limit, HISTORY))
    found = await broker.store.history(
        after=request.after, before=request.before, limit=limit, newest=request.newest
    )
    known = broker.roster.get
    letters: list[Any] = [with_names(letter_view(message), known) for message in found]
    return {"messages": letters}


@operation("/ledger", PeerRequest)
async def ledger(broker: "Broker", caller: Caller, request: PeerRequest) -> "user_answers.Ledger":
    """Count messages by state; accepted is always the sum of the states and what was purged."""
    del caller, request
    counts = await broker.store.ledger()
    return {
        "ok": True,
        "accepted": counts.accepted,
        "purged": counts.purged,
        "states": {state.value: n for state, n in counts.states.items()},
        "balanced": counts.balanced,
        "refused": dict(broker.mail.refused),
    }
