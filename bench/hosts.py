"""Host: what the session that leads pays for leading, in the time of its own tool calls."""

from __future__ import annotations

import asyncio, multiprocessing

from load import drive, live_pids, register
from procs import now
from results import R, q
from rig import IMPLS, OPT, Inst, calm, until

PEERS, BUSY = 1000, 32
IDLE, CROWDED = "idle broker", f"{PEERS} peers, {BUSY} busy connections"
TOOLS = ("list_peers", "send_message", "check_messages", "set_summary")
ENOUGH = 120.0
"""Seconds after which the load ends by itself."""


def table(where):
    return f"host: tools of the leader's own session ({where})"


def work(inst, ids, stop, told):
    """Keep 32 connections busy: each sends to a peer of its own, and polls for that peer."""
    sends = [
        inst.req("/send-message", {"from_id": ids[k], "to_id": ids[BUSY + k], "text": "x" * 200})
        for k in range(BUSY)
    ]
    polls = [inst.req("/poll-messages", {"id": ids[BUSY + k]}) for k in range(BUSY)]
    turn = [0] * BUSY

    def following(k):
        turn[k] ^= 1
        return None if stop.is_set() else sends[k] if turn[k] else polls[k]

    r = drive(inst.port, BUSY, following, None, ENOUGH)
    told.put((r["n"] / r["s"], q(r["lat"], 0.99), r["errors"]))


async def calls(inst, count, pooled):
    """Let the leader's own session call each of its tools; return how many calls went wrong."""
    leader, other = inst.sessions
    given = {
        "list_peers": {"scope": "machine"},
        "send_message": {"to_id": other.id, "message": "y" * 200},
        "check_messages": {},
        "set_summary": {"summary": "leading"},
    }
    wrong = 0
    for _ in range(count):
        for tool in TOOLS:
            if tool == "check_messages":  # there is something to read
                await other.rpc(
                    "tools/call",
                    {
                        "name": "send_message",
                        "arguments": {"to_id": leader.id, "message": "z" * 200},
                    },
                )
            t = now()
            t1, m = await leader.rpc("tools/call", {"name": tool, "arguments": given[tool]})
            pooled.setdefault(tool, []).append(1000 * (t1 - t))
            wrong += not m or "result" not in m or bool(m["result"].get("isError"))
        await other.rpc("tools/call", {"name": "check_messages", "arguments": {}})
    return wrong


async def pair(impl):
    """Two sessions, the first of which leads."""
    inst = await Inst(impl).cluster(2)
    await until(lambda: inst.owners() == {inst.sessions[0].p.pid}, 5)
    await inst.settle()
    return inst


async def m_host():
    """The leader's own tools with a thousand peers and 32 busy connections, and on an idle broker."""
    count = 50 if OPT.quick else 100
    forked = multiprocessing.get_context("fork")  # in this process it would share its one lock
    for impl in IMPLS:
        if "host" in impl.skip:
            continue
        pooled, seen, insts = {IDLE: {}, CROWDED: {}}, {IDLE: [], CROWDED: []}, []
        try:
            insts += [await pair(impl)]
            insts += [await pair(impl)]
            idle, crowd = insts
            ids, _ = register(crowd, live_pids(PEERS), 0, 8)
            seen[CROWDED].append(("peers listed", "n", len(await crowd.peers(10))))
            for rep in range(OPT.reps):
                await calm()
                wrong = await calls(idle, count, pooled[IDLE])
                seen[IDLE].append(("calls that went wrong", "n", wrong))
                stop, told = forked.Event(), forked.SimpleQueue()
                load = forked.Process(target=work, args=(crowd, ids, stop, told), daemon=True)
                load.start()
                await asyncio.sleep(0.5)
                try:
                    wrong = await calls(crowd, count, pooled[CROWDED])
                finally:
                    stop.set()
                    rate, p99, errors = await asyncio.to_thread(told.get)
                    await asyncio.to_thread(load.join)
                seen[CROWDED] += [
                    ("calls that went wrong", "n", wrong),
                    ("requests of the busy", "1/s", rate),
                    ("p99 of a request of the busy", "ms", p99),
                    ("requests of the busy that failed", "n", errors),
                ]
        except Exception as e:
            R.note("host", impl.name, f"failed: {e!r}")
            if OPT.debug:
                raise
        finally:
            for inst in insts:
                await inst.stop()
        for where, tools in pooled.items():
            for metric, unit, value in seen[where]:
                R.add(table(where), metric, unit, impl.name, value)
            every = sum(tools.values(), [])
            for tool, ms in [*tools.items(), ("all four", every)]:
                R.add(table(where), f"{tool}: p50", "ms", impl.name, q(ms, 0.5))
                R.add(table(where), f"{tool}: p99", "ms", impl.name, q(ms, 0.99))
            R.add(table(where), "all four: max", "ms", impl.name, max(every, default=None))
