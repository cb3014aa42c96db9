"""`docs/security.md`, made from the tests that are marked with the threat they prove.

`python -m tests.support.security --write` writes the table between its markers; a threat without a
test is listed as such. A test that proves a row carries `@pytest.mark.threat("T16")`.
"""

from tests.support.proofs import Proofs, main

ROWS = {
    "T1": ("a web page posts without asking (text, form, no type)", "415, nothing is stored"),
    "T2": ("a web page of any origin, also of this machine", "403, no page may ask for more"),
    "T3": ("DNS rebinding: a page's own name leads here", "421 before the body is read"),
    "T4": ("a page asks for `0.0.0.0`", "421"),
    "T5": ("a page reads who is there", "403, and no answer lets a page read it"),
    "T6": (
        "a page opens a WebSocket or a stream of events",
        "403 on every path; what is no frame ends the connection unserved",
    ),
    "T7": ("a message in another peer's name", "401, nothing is stored; else marked not verified"),
    "T8": ("another peer's mail is read or acknowledged", "401, the mail is still there"),
    "T9": (
        "another peer is evicted, rewritten or registered over",
        "refused, or a peer of its own that is not verified; the victim is untouched",
    ),
    "T10": ("another user of this machine", "401 on every path; its files are closed to it"),
    "T11": ("a stranger owns the port", "is sent a question and nothing else"),
    "T12": (
        "another user reads the files; deleted texts in them",
        "0600 and 0700 under any umask; what was purged is overwritten",
    ),
    "T13": ("the local network", "127.0.0.1 by default; other addresses in TLS and with a token"),
    "T14": ("no token, or a wrong one", "401; a wrong one is never ignored"),
    "T15": (
        "a federated broker takes over local peers",
        "not offered yet: no federation, its paths answer 404; a joined machine owns its own peers",
    ),
    "T16": (
        "a captured greeting of a broker is replayed",
        "not offered yet: brokers do not greet each other, the paths answer 404",
    ),
    "T17": (
        "a forged sender gets a valid signature",
        "not offered yet: messages are not signed; a forged sender is marked not verified",
    ),
    "T18": (
        "a webhook makes the broker ask any address",
        "refused unless it is this machine's, or allowed; judged again at each post; no redirects",
    ),
    "T19": ("a text closes its frame or opens a tag with authority", "is shown, not obeyed"),
    "T20": ("a name, summary or directory injects", "one printable line of bounded length"),
    "T21": ("an agent takes a peer for its user", "the instructions say whose word it is"),
    "T22": ("a peer approves tools for another", "permission relay is never declared"),
    "T23": ("a flood under changing names or connections", "refused at the sender's limit"),
    "T24": ("slow and many connections", "cut at the deadline; others are served meanwhile"),
    "T25": ("request smuggling and odd framing", "400, and the connection ends"),
    "T26": ("two agents answer each other without end", "slowed, then refused: loop guard"),
    "T27": ("secrets and texts in command lines and environments", "they are in neither"),
    "T28": ("a project's settings name an attacker's broker", "no connection unless joined"),
    "T29": ("texts and tokens in logs", "neither is logged"),
    "T30": ("data leaves the machine unasked", "only with a key, announced; else no connection"),
    "T31": ("other machines learn paths and processes", "name, summary, host, last folder only"),
    "T32": ("a captured request is sent again", "401"),
    "T33": ("planted links, other users' files", "refused with the remedy, the target untouched"),
    "T34": ("the unpacked files are tampered with", "unpacked again, or refused"),
    "T35": ("somebody ends the broker", "needs the user's secret; signals nobody"),
    "T36": (
        "a proxy or relay makes remote look local",
        "401 for what proxies add, but for a post that is signed with the token of a hook",
    ),
    "T37": ("ids or secrets are guessed", "from the system's random numbers; compared in one time"),
    "T38": ("a dependency is attacked", "few, named, from one declared list, locked by hashes"),
}
"""What somebody may try, and what is expected then."""

PROOFS = Proofs(mark="threat", document="docs/security.md", rows=ROWS)

if __name__ == "__main__":
    main(PROOFS)
