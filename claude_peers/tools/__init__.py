"""What an agent may call: this tuple is the tool list."""

from claude_peers.tools import hook, messages, peers, receipts, topics, waiting
from claude_peers.tools.registry import Tool

TOOLS: tuple[Tool, ...] = (
    peers.list_peers,
    messages.send_message,
    messages.check_messages,
    peers.set_summary,
    peers.whoami,
    receipts.message_status,
    receipts.get_dead_letters,
    waiting.wait_for_message,
    topics.broadcast,
    topics.subscribe,
    topics.unsubscribe,
    hook.hook,
)
