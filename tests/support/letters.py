"""Peers that are only registered, and messages to them that nobody read."""

from typing import Any

from claude_peers.core.delivery import DELIVERIES


def join(machine, name: str, **fields: Any) -> str:
    """Register a peer that anybody on the machine may act for; return its id."""
    body = {"pid": machine.bystander().pid, "cwd": f"/proj/{name}", "name": name, **fields}
    return str(machine.post("/register", body)["id"])


def send(machine, to_id: str, text: str = "hi", *, sender: str = "cli", **fields: Any) -> int:
    """Send a message; return its id."""
    body = {"from_id": sender, "to_id": to_id, "text": text, **fields}
    return int(machine.post("/send-message", body)["message_id"])


def die(machine, to_id: str, text: str = "hi", **fields: Any) -> int:
    """Send a message, the only one in its mailbox, and let it come back until it is given up."""
    number = send(machine, to_id, text, **fields)
    for _ in range(DELIVERIES):
        taken = machine.post("/poll-messages", {"id": to_id, "ack_supported": True})["messages"]
        assert [each["id"] for each in taken] == [number]
        machine.post("/release-messages", {"id": to_id, "message_ids": [number]})
    poll = {"id": to_id, "ack_supported": True}
    assert machine.post("/poll-messages", poll)["messages"] == []
    return number
