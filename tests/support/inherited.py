"""`docs/not-inherited.md`, made from the tests that show a bug of the predecessors not to be ours.

`python -m tests.support.inherited --write` writes the table between its markers; a bug without a
test is listed as such. A test that shows one carries `@pytest.mark.bug("U1")`, on itself.
"""

from tests.support.proofs import Proofs, main

ROWS = {
    "U1": (
        "a poll consumes mail before anybody has seen it; a push counts as delivered",
        "unread until there is evidence; a push is none",
    ),
    "U2": (
        "undelivered mail of a process that is briefly gone is deleted",
        "a mailbox outlives its process; who comes back finds its mail",
    ),
    "U3": ("registering again makes a new id, and the old one is dead", "the id stays"),
    "U4": (
        "the server ignores the end of its input: ghosts that eat mail",
        "it ends, and its peer is away",
    ),
    "U5": (
        "another user's process counts as dead, pid 0 and a reused pid as alive",
        "alive is who has this pid since this start; EPERM is alive",
    ),
    "U6": (
        "a client never registers again and never restarts the broker",
        "a session elects, registers again and keeps its id",
    ),
    "U7": (
        "the broker writes into the pipe of the session that started it, and dies with it",
        "the broker is a session, and its end is a hand-over",
    ),
    "U8": (
        "the handshake waits for broker and summary, and can time out",
        "answered before anything else",
    ),
    "U9": (
        "needs `bun` on the PATH, HOME and URL paths: fails on Windows",
        "one file that runs by the Python that started it",
    ),
    "U10": (
        "polls overlap and have no time limit: stuck, or out of order",
        "one stream in order; every wait is bounded",
    ),
    "U11": (
        "each push asks for the whole roster, and for each of its processes",
        "a push brings its sender along; no process is looked at",
    ),
    "U12": ("order by clock: a clock that steps reorders", "order of acceptance"),
    "U13": (
        "mail of removed peers and all delivered rows stay for ever",
        "what is over is purged after its time, in slices",
    ),
    "U14": ("each worktree is a repository of its own", "worktrees share their repository"),
    "U15": (
        "any web page can post: no type, Host or Origin is looked at",
        "refused before the body is read",
    ),
    "U16": (
        "anybody reads, renames or evicts anybody",
        "each peer belongs to its process or token",
    ),
    "U17": ("the database is readable by every user", "0600 in 0700"),
    "U18": (
        "`kill-broker` signals every process with a connection, and reports success anyway",
        "asks the leader to step down; signals nobody; says who leads now",
    ),
    "U19": ("`send` fails with exit code 0", "4, 6 or 7, by reason"),
    "U20": (
        '`to` instead of `to_id`: "Peer undefined not found"',
        "the tools take it; a request is told that `to_id` is missing",
    ),
    "U21": (
        "models answer with the built-in SendMessage, and the answer is lost",
        "the instructions say which is which",
    ),
    "U22": (
        "nobody sees who can be pushed to, nor its own id",
        "the roster shows each route; `whoami` the rest",
    ),
    "U23": (
        "the loser of a start race cleans the shared database before it fails",
        "the lock first; who does not get the port has changed nothing",
    ),
    "P1": (
        "`CLAUDE_PEERS_BROKER_URL` is documented and read by nobody",
        "used, once joined; else refused with the remedy",
    ),
    "P2": ("does not start on an upstream database", "its peers and unread mail are adopted"),
    "P3": ("listens on all interfaces, without a token", "127.0.0.1; elsewhere TLS and a token"),
    "P4": (
        'a client without a host name is "localhost": pids of two machines mix',
        "a pid is looked up only where it is the caller's own",
    ),
    "P5": (
        "agents with an invented pid are removed within 30 s",
        "judged by their heartbeat",
    ),
    "P6": (
        "subscribers that do not exist are reported as recipients, and their rows pile up",
        "refused: there is no such peer",
    ),
    "P7": ("a token is optional, and good for anybody's peer", "bound to its peer for good"),
    "P8": (
        "any caller makes the broker call any address, and reads everybody's",
        "addresses are checked, and shown to nobody",
    ),
    "P9": ("a release that does not parse", "every module is imported, on every platform's path"),
    "P10": ('broadcast always says "0 recipient(s)"', "says how many have it"),
    "P11": (
        "sending waits for the recipient's webhook, one after the other",
        "sending ends when the message is stored",
    ),
    "B4-1": (
        "a webhook that answers 200 gets each message four times, and it is a dead letter",
        "200 is the acknowledgement",
    ),
    "B4-2": ("a retained message is a dead letter after 30 s", "waits like any other"),
    "B4-3": (
        "the client acknowledges right after writing the notification",
        "a push is no acknowledgement",
    ),
    "B4-4": (
        "the fallback looks and never acknowledges: everything becomes a dead letter",
        "what was looked at stays unread, and is acknowledged once it was shown",
    ),
    "B4-5": (
        "who polls seldom loses its mail after minutes",
        "waits for its whole time (24 h unless the sender says otherwise), looked at or not",
    ),
    "B4-6": (
        "federation: agents that come later are never told to the other side",
        "no federation of our own; the paths are refused",
    ),
    "B4-7": (
        "federation: living agents expire on the other side",
        "no federation; a joined machine's peers are peers of the one broker",
    ),
    "B4-8": (
        "federation: ok for an agent that is not connected, and the message is lost",
        "no federation; ok means stored",
    ),
    "B4-9": (
        "federation: one broker's row number marks another's row",
        "no federation; numbers are one broker's",
    ),
    "B4-10": (
        "federation: removed agents stay visible",
        "no federation; who is gone is off the roster",
    ),
    "B4-11": (
        "federation: with two links each broadcast arrives twice",
        "no federation; a broadcast is one message to each",
    ),
    "B4-12": (
        "a reconnecting client is given the token's hash as its token",
        "the token it has, or none",
    ),
    "B4-13": (
        "closing an old socket takes the new one's pushes and fires the will of a living agent",
        "each connection ends for itself",
    ),
    "B4-14": ("overlapping subscriptions deliver twice", "once"),
    "B4-15": ("an expired message is delivered until the next sweep", "never, swept or not"),
    "B4-16": (
        "an open socket is no sign of life: its agent is removed",
        "a connection is one",
    ),
    "B4-17": (
        "the backlog has no signature; what the socket could not take is lost",
        "stored is stored: what was not written whole comes again",
    ),
    "B4-18": (
        "a refusal closes like a clean end, and the client stays deaf",
        "refusals have a code of their own, and the client registers again",
    ),
    "B4-19": (
        "the rate limit counts by a name that anybody may give",
        "counts by registered peer, and all other names of one user together",
    ),
    "B4-20": (
        "a web page lists the sessions through their cards",
        "no answer lets a page read it",
    ),
    "B4-21": (
        "federation: anybody joins, reads everybody and forges; hashes can be replayed",
        "no federation; a machine is invited once, and signs each request",
    ),
    "B4-22": ("the gateway expects another body than the broker sends", "one shape, declared once"),
    "B4-23": (
        "the gateway listens everywhere, shows mail without a token, and forgets",
        "no second door: one broker, one guard, one database",
    ),
    "B4-24": (
        "channel notifications carry null and numbers, and the receiver's own place",
        "strings only, absent rather than empty, about the sender",
    ),
    "B4-25": (
        "what is declared is not there, what is there is not declared, nothing is tested",
        "tables are made from the code and compared by a test",
    ),
}
"""What went wrong in claude-peers-mcp (U), agentmesh 0.1 (P) and 0.4 (B4), and what we do."""

PROOFS = Proofs(mark="bug", document="docs/not-inherited.md", rows=ROWS)

if __name__ == "__main__":
    main(PROOFS)
