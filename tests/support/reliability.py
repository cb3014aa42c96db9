"""`docs/reliability.md`, made from the tests that are marked with the fault they prove.

`python -m tests.support.reliability --write` writes the table between its markers; a fault without
a test is listed as such. A test that proves a row carries `@pytest.mark.fault("F16")`.
"""

from tests.support import figures
from tests.support.proofs import Proofs, main

ROWS = {
    "F1": (
        "SIGKILL of the broker at any system call of a send",
        "what was acknowledged is stored once, and the database is whole",
    ),
    "F2": ("SIGKILL of the leader among many sessions", "one new leader, same ids, nothing twice"),
    "F3": ("every new leader is killed again", "converges; nothing accepted is lost"),
    "F4": ("the leader ends (end of input, SIGTERM)", "hands over; no call of a tool fails"),
    "F5": ("the agent dies and leaves its server behind", "the server ends by itself"),
    "F6": ("fifty sessions start at once", "one leader, no failure"),
    "F7": ("Ctrl-Z in the agent's terminal", "ignored; the mesh goes on"),
    "F8": ("SIGSTOP of the leader", "is woken and stays the leader; there is never a second"),
    "F9": ("the client stops reading our output", "the broker goes on; messages stay unread"),
    "F10": ("the leader's event loop hangs", "it steps down; another takes over"),
    "F11": ("a stranger's server on the port", "is told nothing; we lead once the port is free"),
    "F12": ("the lock is held by a process without the port", "nobody waits for ever"),
    "F13": (
        "the lock file is deleted or replaced",
        "fencing admits one writer; the file comes back",
    ),
    "F14": ("the file system has no locks", "refused with the remedy, never a soft lock"),
    "F15": ("a child process inherits descriptors", "the lock ends with its owner"),
    "F16": ("the disk is full", "refused, nothing accepted is lost, goes on once there is room"),
    "F17": ("fsync fails", "no ok; what was accepted before is there"),
    "F18": (
        "home is read-only, missing, or another user's",
        "the server answers and tools say why",
    ),
    "F19": (
        "the database is garbage, truncated or damaged",
        "told with the remedy; not overwritten",
    ),
    "F20": ("another program holds the database", "waits off the loop, tells, goes on when free"),
    "F21": (
        "an upstream database",
        "peers and unread mail are adopted; upstream can still read it",
    ),
    "F22": ("a newer version's database", "not led from, not written, told"),
    "F23": ("SIGKILL in a migration", "the old schema or the new one, never between"),
    "F24": ("the wall clock jumps", "order is kept; liveness does not use it"),
    "F25": ("the machine sleeps", "on waking peers are given time; connections come back"),
    "F26": ("one sender floods", "refused at its limit; others are served"),
    "F27": ("a client reads a byte a second", "is cut off; its messages stay; memory is bounded"),
    "F28": ("bodies of many megabytes", "413 before they are read"),
    "F29": ("invalid UTF-8, lone surrogates, NUL", "mended; output stays one JSON a line"),
    "F30": ("JSON of endless depth or digits, NaN, null", "400, no crash"),
    "F31": ("no descriptors left", "accepting pauses and comes back"),
    "F32": ("a thousand peers that poll", "served; no process is looked at for each list"),
    "F33": ("a pid is used again", "the former peer is dead"),
    "F34": ("a process of another user (EPERM)", "alive"),
    "F35": ("a peer whose pid is not of this machine", "judged by its heartbeat"),
    "F36": ("two users on one machine", "a broker each; no text crosses"),
    "F37": ("one user with two databases", "one broker for each port and database"),
    "F38": ("an upstream broker has the port", "we are its client, and lead when it ends"),
    "F39": ("upstream clients while our leader is killed", "keep id and mail"),
    "F40": ("older broker, newer client", "works with less"),
    "F41": ("newer broker, older client", "works; unknown fields are ignored"),
    "F42": ("the single file is replaced under a running leader", "goes on"),
    "F43": ("a connection is half open", "noticed by heartbeat; mail is kept; no second peer"),
    "F44": ("a machine is cut off for minutes", "sends fail honestly; same id afterwards"),
    "F45": ("the connection is reset after the commit", "the repetition is one message"),
    "F46": ("a stranger on ::1", "clients dial 127.0.0.1 only"),
    "F47": ("a second listener by SO_REUSEPORT", "never used; the leader asks for itself"),
    "F48": ("WSL2 shares the port with Windows", "one broker, or a token"),
    "F49": ("a cleaner removes files at run time", "made again, or not needed"),
    "F50": ("two versions unpack at once", "one unpacking each, nothing half"),
}
"""What a broker must survive, and what is expected then."""

PROOFS = Proofs(mark="fault", document="docs/reliability.md", rows=ROWS, figures=figures.load)

if __name__ == "__main__":
    main(PROOFS)
