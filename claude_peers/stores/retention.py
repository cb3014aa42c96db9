"""How long every store keeps what is over, in seconds."""

DEDUPE_WINDOW = 600.0
"""A dedupe key names one message for so long."""
KEEP_READ = 24 * 3600.0
"""Messages that were seen or answered."""
KEEP_DEAD = 7 * 24 * 3600.0
"""Dead letters, which can be looked at and sent again."""
