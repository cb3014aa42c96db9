"""Measures through the broker's HTTP: throughput, stored history, an aged database, fan-out."""

from __future__ import annotations

import asyncio, json, os, random, sqlite3

from load import drive, live_pids, register
from procs import cpu_s, now
from results import R, q
from rig import IMPLS, OPT, Inst, Stream, calm, drain


async def m_http():
    pids, txt = live_pids(64), "x" * 200
    nps, npairs, nsend = (300, 200, 1500) if OPT.quick else (1500, 600, 5000)
    for c in (1, 8, 32):
        for rep in range(3):
            for (
                impl
            ) in IMPLS:  # a fresh database each round: cost must not depend on what ran before
                if "http" in impl.skip:
                    continue
                i, name = Inst(impl), impl.name
                add = lambda k, u, v: R.add(
                    "http throughput (fresh database each round)", f"{k}, {c} conn", u, name, v
                )
                try:
                    await i.up(True)
                    d, _ = register(i, pids)
                    await calm()
                    sends = [
                        i.req("/send-message", {"from_id": d[k], "to_id": d[32 + k], "text": txt})
                        for k in range(c)
                    ]
                    polls = [i.req("/poll-messages", {"id": d[32 + k]}) for k in range(c)]
                    e = drive(i.port, c, lambda k: polls[k], None, 3, nps)
                    add("empty poll", "req/s", e["n"] / e["s"])
                    st, bad = [0] * c, [0]

                    def pair(k):
                        st[k] ^= 1
                        return sends[k] if st[k] else polls[k]

                    def check(k, b):
                        if st[k] == 0 and len(json.loads(b).get("messages", [])) != 1:
                            bad[0] += 1

                    c0 = cpu_s(ps := i.pids())
                    r = drive(i.port, c, pair, check, 4, 2 * npairs)
                    add("send+poll pairs", "msg/s", r["n"] / 2 / r["s"])
                    add(
                        "send+poll pairs: broker CPU per message",
                        "us",
                        2e6 * (cpu_s(ps) - c0) / max(1, r["n"]),
                    )
                    add("send+poll pairs: p99 of one request", "ms", q(r["lat"], 0.99))
                    once = lambda: lambda k, u=set(): None if k in u else (u.add(k), polls[k])[1]
                    drive(i.port, c, once(), None, 5)
                    c0 = cpu_s(ps := i.pids())
                    r = drive(i.port, c, lambda k: sends[k], None, 4, nsend)
                    c1 = cpu_s(ps)
                    add("send only", "msg/s", r["n"] / r["s"])
                    add("send only: p99", "ms", q(r["lat"], 0.99))
                    add("send only: broker CPU per message", "us", 1e6 * (c1 - c0) / max(1, r["n"]))
                    got, t = [], now()
                    drive(
                        i.port,
                        c,
                        once(),
                        lambda k, b: got.append(len(json.loads(b)["messages"])),
                        30,
                    )
                    add(
                        "drain of that backlog",
                        "msg/s",
                        sum(got) / (now() - t) if sum(got) else None,
                    )
                    add(
                        "lost + bad pairs + HTTP errors",
                        "n",
                        r["n"] - sum(got) + bad[0] + r["errors"],
                    )
                    if c == 8:
                        g = f"GET {impl.api}/health HTTP/1.1\r\nHost: 127.0.0.1:{i.port}\r\n\r\n".encode()
                        r = drive(i.port, 8, lambda k: g, None, 3, nsend)
                        add("GET /health (64 peers)", "req/s", r["n"] / r["s"])
                        hb = [i.req("/heartbeat", {"id": x}) for x in d[:8]]
                        r = drive(i.port, 8, lambda k: hb[k], None, 3, nsend)
                        add("POST /heartbeat", "req/s", r["n"] / r["s"])
                except Exception as e:
                    R.note("http", name, f"{c} conn failed: {e!r}")
                finally:
                    await i.stop()
    pids = live_pids(1000)
    insts = {}
    try:
        for impl in IMPLS:
            if "http" not in impl.skip:
                i = Inst(impl)
                try:
                    insts[impl.name] = await i.up(True)
                except Exception as e:
                    R.note("http", impl.name, f"peers: {e!r}")
                    await i.stop()
        have, ids = 0, {n: [] for n in insts}
        for n in (10, 100, 1000):
            for name, i in insts.items():
                x, r = register(i, pids[have:n], have, 8)
                ids[name] += x
                if n == 1000:
                    R.add(
                        "http peers",
                        "first registrations, 8 conn (100 to 1000 peers)",
                        "1/s",
                        name,
                        r["n"] / r["s"],
                    )
            have = n
            for rep in range(3):
                for name, i in insts.items():
                    await calm()
                    lp, size = (
                        i.req("/list-peers", {"scope": "machine", "cwd": "/", "git_root": None}),
                        [],
                    )
                    r = drive(
                        i.port,
                        1,
                        lambda k: lp,
                        lambda k, b: size.append((len(b), len(json.loads(b)))),
                        3,
                        15 if n == 1000 else 30,
                    )
                    R.add("http peers", f"/list-peers, {n} peers", "ms", name, q(r["lat"], 0.5))
                    if rep == 0:
                        R.add(
                            "http peers",
                            f"/list-peers, {n} peers: payload",
                            "KB",
                            name,
                            size[-1][0] / 1024 if size else None,
                        )
                        R.add(
                            "http peers",
                            f"/list-peers, {n} peers: returned",
                            "n",
                            name,
                            size[-1][1] if size else None,
                        )
        for rep in range(2):
            for name, i in insts.items():
                x, r = register(i, pids[:300], 0, 8)
                R.add(
                    "http peers",
                    "re-registrations of a known pid, 8 conn, 1000 peers",
                    "1/s",
                    name,
                    r["n"] / r["s"],
                )
    finally:
        for i in insts.values():
            await i.stop()


def preload(inst, n):
    """Put rows of delivered history into the stopped broker's database (config key preload_sql for another schema)."""
    sql = inst.impl.d.get("preload_sql") or (
        "INSERT INTO messages(from_id,to_id,text,sent_at,delivered) WITH RECURSIVE c(k) AS (SELECT 1 UNION ALL SELECT k+1 FROM c "
        "WHERE k<{n}) SELECT 'p'||(k%40), 'q'||(k%40), '{text}', '2026-01-01T00:00:00.000Z', 1 FROM c"
    )
    d = sqlite3.connect(inst.vars["db"], isolation_level=None)
    d.execute("PRAGMA synchronous=OFF")
    d.execute("BEGIN")
    for statement in sql.split(";"):
        d.execute(statement.replace("{n}", str(n)).replace("{text}", "x" * 200))
    d.execute("COMMIT")
    d.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    d.close()
    return os.path.getsize(inst.vars["db"]) / 2**20


def against_none(M, sizes, names):
    """Print what a history costs: each figure as a ratio to that without one."""
    for k in ("empty poll", "send", "poll of one message"):
        for n in sizes[1:]:
            for name in names:
                none, some = (
                    R.med(R.rows.get((M, f"{z}: {k}"), {"values": {}})["values"].get(name))
                    for z in (0, n)
                )
                if none and some:
                    R.add(M + ": ratio to none", f"{n}: {k}", "ratio", name, some / none)


async def m_stored():
    sizes = (0, 10_000, 100_000, 1_000_000)[: 3 if OPT.quick else 4]
    pids, insts, have = live_pids(8), {}, 0
    M = "cost against messages stored (all delivered long ago)"
    for impl in IMPLS:
        if "stored" not in impl.skip:
            i = Inst(impl)
            try:
                await i.up(True)
                insts[impl.name] = i
            except Exception as e:
                R.note("stored", impl.name, f"failed: {e!r}")
            await i.stop(keep=impl.name in insts)
    try:
        for n in sizes:
            for name, i in list(insts.items()):
                add = lambda k, u, v: R.add(M, f"{n}: {k}", u, name, v)
                try:
                    mb = preload(i, n - have) if n > have else os.path.getsize(i.vars["db"]) / 2**20
                    t = now()
                    await i.up(True)
                    add("broker start", "ms", 1000 * (now() - t))
                    d, _ = register(i, pids)
                    snd = i.req(
                        "/send-message", {"from_id": d[0], "to_id": d[1], "text": "y" * 200}
                    )
                    p1, pe = (
                        i.req("/poll-messages", {"id": d[1]}),
                        i.req("/poll-messages", {"id": d[2]}),
                    )
                    for rep in range(3):
                        await calm()
                        e = drive(i.port, 1, lambda k: pe, None, 0.5, 100)
                        add("empty poll", "ms", q(e["lat"], 0.5))
                        st, ls, lp = [0], [], []

                        def alt(k):
                            st[0] ^= 1
                            return snd if st[0] else p1

                        r = drive(i.port, 1, alt, None, 0.5, 100)
                        ls, lp = r["lat"][0::2], r["lat"][1::2]
                        add("send", "ms", q(ls, 0.5))
                        add("poll of one message", "ms", q(lp, 0.5))
                    ps = i.pids()
                    c0 = cpu_s(ps)
                    e = drive(i.port, 1, lambda k: pe, None, 1.0, 200)
                    add("broker CPU per empty poll", "ms", 1000 * (cpu_s(ps) - c0) / max(1, e["n"]))
                    add("database file", "MB", mb)
                except Exception as e:
                    R.note("stored", name, f"{n}: {e!r}")
                finally:
                    await i.stop(keep=True)
            have = n
        against_none(M, sizes, insts)
    finally:
        for i in insts.values():
            await i.stop()


async def m_aged():
    """20 sessions on a database with a history: what the idle pollers cost, and what is left for messages."""
    for h in (0, 100_000) + (() if OPT.quick else (1_000_000,)):
        for impl in IMPLS:
            if {"aged", "stored"} & impl.skip:
                continue
            inst = Inst(impl)
            try:
                await inst.up(True)
                await inst.stop(keep=True)
                if h:
                    preload(inst, h)
                await inst.cluster(20)
                await asyncio.sleep(3)
                own = inst.owners()
                c0, t0 = cpu_s(own), now()
                await asyncio.sleep(5)
                add = lambda k, u, v: R.add(
                    "20 sessions on a database with a history",
                    f"{h} messages: {k}",
                    u,
                    impl.name,
                    v,
                )
                add(
                    "port owner's CPU when idle",
                    "% of a core",
                    100 * (cpu_s(own) - c0) / (now() - t0),
                )
                st = Stream(inst.sessions[5], inst.sessions[6])
                for _ in range(20):
                    st.send()
                    await asyncio.sleep(random.uniform(0.1, 0.3))
                await drain(st, 10)
                add("delivery p50", "ms", q(st.lat(), 0.5))
                add("delivery max", "ms", max(st.lat(), default=None))
                add(
                    "tool answer p50",
                    "ms",
                    q([1000 * (st.resp[k][0] - st.sent[k]) for k in st.acked()], 0.5),
                )
                add("not delivered within 10 s", "n", st.n - len(st.got))
            except Exception as e:
                R.note("aged", impl.name, f"{h}: failed: {e!r}")
            finally:
                await inst.stop()


async def m_fanout():
    pids, insts, ids = live_pids(201), {}, {}
    for impl in IMPLS:
        if "fanout" in impl.skip:
            continue
        try:
            i = Inst(impl)
            await i.up(True)
            ids[impl.name], _ = register(i, pids)
            insts[impl.name] = i
        except Exception as e:
            R.note("fanout", impl.name, f"failed: {e!r}")
            await i.stop()
    try:
        for n in (50, 200):
            for name, i in insts.items():
                if i.impl.d.get("broadcast", True):
                    todo = iter(ids[name][1 : n + 1])
                    drive(
                        i.port,
                        4,
                        lambda k: next(
                            (i.req("/subscribe", {"id": x, "topic": f"t{n}"}) for x in todo), None
                        ),
                        None,
                        20,
                    )
            for rep in range(OPT.reps):
                for name, i in insts.items():
                    has, d = i.impl.d.get("broadcast", True), ids[name]
                    await calm()
                    if has:
                        rq = i.req(
                            "/broadcast",
                            {
                                "from_id": d[0],
                                "topic": f"t{n}",
                                "text": f"round {rep} " + "z" * 200,
                            },
                        )
                        r = drive(i.port, 1, lambda k: rq, None, 20, 1)
                    else:
                        todo = iter(d[1 : n + 1])
                        r = drive(
                            i.port,
                            1,
                            lambda k: next(
                                (
                                    i.req(
                                        "/send-message",
                                        {"from_id": d[0], "to_id": x, "text": "z" * 200},
                                    )
                                    for x in todo
                                ),
                                None,
                            ),
                            None,
                            20,
                        )
                    lab = (
                        "/broadcast answered"
                        if has
                        else "n/a: one /send-message per subscriber instead"
                    )
                    R.add(
                        "fan-out",
                        f"{n} subscribers: published (broadcast, or n sends where there is none)",
                        "ms",
                        name,
                        1000 * r["s"],
                    )
                    got, todo = [], iter(d[1 : n + 1])
                    r2 = drive(
                        i.port,
                        8,
                        lambda k: next((i.req("/poll-messages", {"id": x}) for x in todo), None),
                        lambda k, b: got.append(len(json.loads(b)["messages"])),
                        20,
                    )
                    R.add(
                        "fan-out",
                        f"{n} subscribers: all polled, 8 conn",
                        "ms",
                        name,
                        1000 * r2["s"],
                    )
                    R.add(
                        "fan-out",
                        f"{n} subscribers: missing or extra",
                        "n",
                        name,
                        abs(n - sum(got)) + sum(abs(g - 1) for g in got),
                    )
                    if rep == 0 and n == 50 and not has:
                        R.note("fanout", name, lab)
    finally:
        for i in insts.values():
            await i.stop()
