"""One function per request a peer may make; this tuple is the API."""

from claude_peers.broker.operations import admin, machines, messages, peers, topics
from claude_peers.broker.operations.registry import Operation

OPERATIONS: tuple[Operation, ...] = (
    peers.register,
    peers.heartbeat,
    peers.set_summary,
    peers.list_peers,
    peers.unregister,
    messages.send_message,
    messages.poll_messages,
    messages.peek_messages,
    messages.ack_messages,
    messages.release_messages,
    messages.pushed_messages,
    messages.message_status,
    messages.dead_letters,
    messages.resend_message,
    topics.subscribe,
    topics.unsubscribe,
    topics.broadcast,
    peers.rename,
    peers.mute,
    peers.set_route,
    peers.add_keys,
    admin.history,
    admin.step_down,
    admin.ledger,
    machines.join,
    machines.invite,
    machines.revoke,
    machines.machines,
)
