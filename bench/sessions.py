"""Measures through sessions: start-up, herd, idle, latency, failover."""

from __future__ import annotations

import asyncio, os, random, signal

from procs import cpu_s, descend, gone, kill, mem_mb, now, pids_of, wakeups
from results import R, q
from rig import IMPLS, OPT, Inst, Session, Stream, calm, drain, until


async def m_startup():
    n_more = 3
    for rep in range(OPT.reps):
        for impl in IMPLS:
            if "startup" in impl.skip:
                continue
            inst = Inst(impl)
            add = lambda k, u, v: R.add("startup", k, u, impl.name, v)
            try:
                await calm()
                t0 = now()
                if impl.broker and not impl.autostart:
                    inst.spawn_broker()
                    await until(inst.listening, 10, 0.002)
                for k in range(1 + n_more):
                    s = Session(inst, k)
                    inst.sessions.append(s)
                    s.spawn()
                    base = t0 if k == 0 else s.t0
                    ini = asyncio.create_task(s.init())
                    seen = asyncio.create_task(s.peer_id(15, 0.004))
                    try:
                        await ini
                    except BaseException:
                        seen.cancel()
                        raise
                    cpu = cpu_s(inst.pids() if k == 0 else [s.p.pid], True)
                    await seen
                    w = "first" if k == 0 else "2nd..4th"
                    add(f"{w}: spawn to initialize response", "ms", 1000 * (s.t_init - base))
                    add(f"{w}: spawn to visible in /list-peers", "ms", 1000 * (s.t_reg - base))
                    add(
                        f"{w}: CPU used by then (all processes)"
                        if k == 0
                        else f"{w}: CPU used by then",
                        "ms",
                        1000 * cpu,
                    )
                await asyncio.sleep(0.2)
                a, b = inst.sessions[-1], inst.sessions[-2]
                t = now()
                os.kill(b.p.pid, signal.SIGTERM)
                end = await gone(b.p, 3)
                add("exit after SIGTERM", "ms", 1000 * (end - t) if end else None)
                t = now()
                a.p.stdin.close()
                end = await gone(a.p, 2)
                add(
                    "exit after stdin EOF (- = still running after 2 s)",
                    "ms",
                    1000 * (end - t) if end else None,
                )
                left = [p.get("cwd") for p in await inst.peers()]
                add("ended sessions still listed (0-2)", "n", sum(x.cwd in left for x in (a, b)))
            except Exception as e:
                R.note("startup", impl.name, f"failed: {e!r}")
            finally:
                await inst.stop()


async def m_herd():
    n = 10
    for rep in range(min(3, OPT.reps)):
        for impl in IMPLS:
            if "herd" in impl.skip:
                continue
            inst = Inst(impl)
            try:
                if impl.broker and not impl.autostart:
                    await inst.up()
                ss = [Session(inst, k) for k in range(n)]
                await calm()
                inst.sessions = ss
                t0 = now()
                for s in ss:
                    s.spawn()
                got = await asyncio.gather(*[s.init(20) for s in ss], return_exceptions=True)
                ok = [s for s, g in zip(ss, got) if not isinstance(g, BaseException)]
                await until(lambda: True, 0.1)
                vis, end = 0, now() + 10
                while now() < end:
                    try:
                        cw = {p.get("cwd") for p in await inst.peers()}
                        vis = sum(s.cwd in cw for s in ss)
                    except (OSError, asyncio.TimeoutError, asyncio.IncompleteReadError):
                        pass
                    if vis == len(ok):
                        break
                    await asyncio.sleep(0.02)
                t1 = now()
                add = lambda k, u, v: R.add(
                    "herd (10 sessions at once, nothing running)", k, u, impl.name, v
                )
                add(
                    "all initialized", "ms", 1000 * (max(s.t_init for s in ok) - t0) if ok else None
                )
                add("all visible", "ms", 1000 * (t1 - t0) if ok else None)
                add("sessions that failed to start", "n", n - len(ok))
                add("sessions visible", "n", vis)
                await asyncio.sleep(1.0)
                add("processes listening on the port", "n", len(inst.owners()))
                add("processes alive", "n", len(inst.pids()))
            except Exception as e:
                R.note("herd", impl.name, f"failed: {e!r}")
            finally:
                await inst.stop()


async def m_idle():
    secs = OPT.idle_seconds
    per = {}
    for n in (1, 5, 20):
        for impl in IMPLS:
            if "idle" in impl.skip:
                continue
            inst = Inst(impl)
            try:
                await inst.cluster(n)
                await asyncio.sleep(4)
                ps = inst.pids()
                c0, w0, t0 = cpu_s(ps), wakeups(ps), now()
                await asyncio.sleep(secs)
                c1, w1, t1 = cpu_s(ps), wakeups(ps), now()
                rss, pss, uss = mem_mb(ps)
                per.setdefault(impl.name, {})[n] = pss
                add = lambda k, u, v: R.add("idle", f"N={n}: {k}", u, impl.name, v)
                add("processes", "n", len(ps))
                add("RSS sum", "MB", rss)
                add("PSS sum", "MB", pss)
                add("private (USS) sum", "MB", uss)
                add("PSS per session", "MB", pss / n)
                add(f"CPU used in {secs:.0f} s", "ms", 1000 * (c1 - c0))
                add("CPU share of one core", "%", 100 * (c1 - c0) / (t1 - t0))
                add("wake-ups", "1/s", (w1 - w0) / (t1 - t0))
            except Exception as e:
                R.note("idle", impl.name, f"N={n} failed: {e!r}")
            finally:
                await inst.stop()
    for name, d in per.items():
        if 1 in d and 20 in d:
            R.add(
                "idle",
                "PSS of one further session (N=20 minus N=1, /19)",
                "MB",
                name,
                (d[20] - d[1]) / 19,
            )


async def m_latency():
    insts, spaced, tot = {}, {}, {}
    for impl in IMPLS:
        if "latency" in impl.skip:
            continue
        try:
            i = Inst(impl)
            insts[impl.name] = await i.cluster(3)
            await asyncio.sleep(1.5)
        except Exception as e:
            R.note("latency", impl.name, f"failed: {e!r}")
            await i.stop()
    M = "latency (tools/call on A's stdin to channel line on B's stdout)"
    try:
        for chunk in range(4):
            for name, inst in insts.items():
                _, a, b = inst.sessions
                st = Stream(a, b)
                await calm()
                for _ in range(50 // (2 if OPT.quick else 1)):
                    st.send()
                    await asyncio.sleep(random.uniform(0.02, 0.08))
                await drain(st, 6)
                spaced.setdefault(name, []).append(st)
                R.add(M, "spaced: p50 (4 rounds of 50)", "ms", name, q(st.lat(), 0.5))
        for name, sts in spaced.items():
            xs = sum((s.lat() for s in sts), [])
            for p, lab in ((0.95, "p95"), (0.99, "p99"), (1.0, "max")):
                R.add(M, f"spaced: {lab} (200 pooled)", "ms", name, q(xs, p))
            R.add(
                M,
                "spaced: tool answer p50",
                "ms",
                name,
                q([1000 * (s.resp[k][0] - s.sent[k]) for s in sts for k in s.acked()], 0.5),
            )
            for k in ("sent", "acked", "lost", "dup", "reordered", "errors"):
                R.add(M, f"spaced: {k}", "n", name, sum(s.summary()[k] for s in sts))
        for rep in range(3):
            for name, inst in insts.items():
                _, a, b = inst.sessions
                st = Stream(a, b)
                await calm()
                await asyncio.sleep(random.uniform(0, 1.0))
                t = now()
                st.send(100)
                await drain(st, 12)
                xs, sm = st.lat(), st.summary()
                R.add(M, "burst of 100: p50", "ms", name, q(xs, 0.5))
                R.add(M, "burst of 100: last delivered", "ms", name, max(xs) if xs else None)
                R.add(
                    M,
                    "burst of 100: all answered",
                    "ms",
                    name,
                    1000 * (max(r[0] for r in st.resp.values()) - t) if st.resp else None,
                )
                for k in ("acked", "lost", "dup", "reordered", "errors"):
                    R.add(M, f"burst of 100: {k}", "n", name, sm[k])
                if sm["first_error"]:
                    R.note("latency", name, sm["first_error"])
        for rep in range(3):  # an agent that waits for each answer before the next call
            for name, inst in insts.items():
                _, a, b = inst.sessions
                await calm()
                st, t = Stream(a, b), now()
                while st.n < 100 and now() - t < 8:
                    await asyncio.wait(st.send(), timeout=5)
                R.add(M, "100 awaited calls: all answered", "ms", name, 1000 * (now() - t))
                R.add(
                    M,
                    "100 awaited calls: last delivered",
                    "ms",
                    name,
                    1000 * (now() - t) if await until(st.done, 8, 0.001) else None,
                )
                R.add(M, "100 awaited calls: reordered", "n", name, st.summary()["reordered"])
                R.add(
                    M,
                    "100 awaited calls: lost+dup+errors",
                    "n",
                    name,
                    sum(st.summary()[k] for k in ("lost", "dup", "errors")),
                )
        for rep in range(4 if OPT.quick else 8):
            for name, inst in insts.items():
                _, a, b = inst.sessions
                x, y = Stream(a, b), Stream(b, a)
                await asyncio.sleep(random.uniform(0, 1.0))
                x.send()
                if await until(lambda: x.got, 5, 0.001):
                    await asyncio.sleep(random.uniform(0.1, 1.1))
                    y.send()
                    await until(lambda: y.got, 5, 0.001)
                R.add(
                    M,
                    "question and answer in transit (A to B to A, thinking time excluded)",
                    "ms",
                    name,
                    x.lat()[0] + y.lat()[0] if x.got and y.got else None,
                )
        for rep in range(
            2
        ):  # ten sessions' worth of senders are not needed: one receiver, two senders
            for name, inst in insts.items():
                c, a, b = inst.sessions
                s1, s2 = Stream(a, b), Stream(c, b)
                s1.send(50)
                s2.send(50)
                await drain(s1, 10)
                await drain(s2, 10)
                R.add(
                    M,
                    "two senders x 50 to one receiver: last delivered",
                    "ms",
                    name,
                    max(s1.lat() + s2.lat(), default=None),
                )
                R.add(
                    M,
                    "two senders x 50: lost+dup+reordered",
                    "n",
                    name,
                    sum(s.summary()[k] for s in (s1, s2) for k in ("lost", "dup", "reordered")),
                )
    finally:
        for i in insts.values():
            await i.stop()


async def trial(inst, a, b, fault, window, hold=0.0, after=None, rate=50):
    """Stream a to b at rate/s, run fault() after 1 s, watch for recovery, drain, count."""
    st, stop = Stream(a, b), asyncio.Event()

    async def pump():
        t = now()
        while not stop.is_set():
            st.send()
            t += 1 / rate
            await asyncio.sleep(max(0, t - now()))

    task = asyncio.create_task(pump())
    await asyncio.sleep(1.0)
    base_ok = len(st.acked())
    tf = now()
    fault()

    def first(get, t):
        return min(
            (x for x in map(get, [k for k in list(st.sent) if st.sent[k] >= t]) if x), default=None
        )

    ok_after = lambda t: first(
        lambda k: st.resp[k][0] if k in st.resp and st.resp[k][1] else None, t
    )
    got_after = lambda t: first(lambda k: st.got[k][0] if k in st.got else None, t)
    res = {"baseline_acked": base_ok}
    t_from = tf
    if hold:
        await asyncio.sleep(hold)
        after()
        t_from = now()
    rec = await until(lambda: ok_after(t_from) and got_after(t_from), window, 0.02)
    res["recovered"] = bool(rec)
    if rec:
        await asyncio.sleep(1.0)
    res["send_gap_ms"] = 1000 * (ok_after(tf) - tf) if ok_after(tf) else None
    res["deliver_gap_ms"] = 1000 * (got_after(tf) - tf) if got_after(tf) else None
    if hold:
        res["after_cont_ms"] = (
            1000 * (max(ok_after(t_from), got_after(t_from)) - t_from) if rec else None
        )
    arr = sorted(t for v in st.got.values() for t in v)
    gaps = [y - x for x, y in zip(arr, arr[1:]) if y > tf - 0.1]
    res["longest_silence_ms"] = 1000 * max(gaps) if gaps and rec else None
    if not rec:
        t = (
            now()
        )  # nothing came back by itself: what does a new session (or the operator) bring back?
        try:
            if inst.impl.autostart:
                await inst.add()
                res["revived_by"] = "a new session"
            else:
                inst.spawn_broker()
                res["revived_by"] = "restarting the broker by hand"
            r2 = await until(lambda: ok_after(t) and got_after(t), window, 0.02)
            res["revive_send_ms"] = 1000 * (ok_after(t) - t) if ok_after(t) else None
            res["revive_deliver_ms"] = 1000 * (got_after(t) - t) if got_after(t) else None
            if r2:
                await asyncio.sleep(0.5)
        except Exception as e:
            res["revive_error"] = repr(e)[:200]
    stop.set()
    await task
    await drain(st, 6)
    res.update(st.summary())
    errs = [k for k, r in st.resp.items() if not r[1]]
    res["refused_span_ms"] = (
        1000 * (max(st.sent[k] for k in errs) - min(st.sent[k] for k in errs)) if errs else 0.0
    )
    del b.streams[st.tag]
    return res


async def m_failover():
    W = 8.0
    show = (
        ("send works again", "send_gap_ms", "ms"),
        ("delivery works again", "deliver_gap_ms", "ms"),
        ("longest silence at the receiver", "longest_silence_ms", "ms"),
        ("after SIGCONT", "after_cont_ms", "ms"),
        ("revived (by new session/operator): delivery", "revive_deliver_ms", "ms"),
        ("sent", "sent", "n"),
        ("acked", "acked", "n"),
        ("refused with an error", "errors", "n"),
        ("unanswered", "unanswered", "n"),
        ("acked but lost", "lost", "n"),
        ("duplicated", "dup", "n"),
        ("reordered", "reordered", "n"),
        ("refused yet delivered", "unacked_but_delivered", "n"),
    )
    detail = R.detail = getattr(R, "detail", {})
    for mode in ("SIGKILL", "SIGTERM", "SIGSTOP 10 s", "5 x SIGKILL"):
        for impl in IMPLS:
            if "failover" in impl.skip:
                continue
            inst = Inst(impl)
            try:
                await inst.cluster(10)
                await asyncio.sleep(1.5)
                M = f"failover {mode} of the port owner (10 sessions, 50 msg/s)"
                for k in range(5 if mode[0] == "5" else 1):
                    own = inst.owners()
                    live = [s for s in inst.sessions if s.alive()]
                    if len(own) != 1:
                        R.note(
                            "failover",
                            impl.name,
                            f"{mode}: {len(own)} processes own the port before fault {k + 1}",
                        )
                        if not own:
                            break
                    victim = min(own)
                    kin = {
                        s
                        for s in live
                        if s.p.pid in own or own & pids_of(f"{inst.tag}") & descend(s.p.pid)
                    }
                    emb = [s for s in kin if s.p.pid in own]
                    cand = [s for s in live if s not in emb]
                    a, b = cand[-1], cand[-2]
                    for s in (a, b):
                        old, s.id = s.id, None
                        await s.peer_id()
                        if old and s.id != old:
                            R.note(
                                "failover", impl.name, f"{mode}: peer id changed after takeover {k}"
                            )
                    if mode[:7] == "SIGSTOP":
                        r = await trial(
                            inst,
                            a,
                            b,
                            lambda: kill(victim, signal.SIGSTOP),
                            W,
                            10.0,
                            lambda: kill(victim, signal.SIGCONT),
                        )
                    else:
                        r = await trial(
                            inst,
                            a,
                            b,
                            lambda: kill(
                                victim, signal.SIGTERM if mode == "SIGTERM" else signal.SIGKILL
                            ),
                            W,
                        )
                    await asyncio.sleep(0.5)
                    r["owners_after"] = len(inst.owners())
                    r["victim"] = "a session (embedded broker)" if emb else "a broker daemon"
                    live = [s for s in inst.sessions if s.alive()]
                    try:
                        cw = {p.get("cwd") for p in await inst.peers()}
                        r["visible"], r["alive"] = sum(s.cwd in cw for s in live), len(live)
                    except (OSError, asyncio.TimeoutError, asyncio.IncompleteReadError):
                        r["visible"], r["alive"] = 0, len(live)
                    detail.setdefault(mode, {}).setdefault(impl.name, []).append(r)
                    R.add(M, "recovered by itself (1/0)", "n", impl.name, int(r["recovered"]))
                    for lab, key, unit in show:
                        if key != "after_cont_ms" or mode[:7] == "SIGSTOP":
                            R.add(M, lab, unit, impl.name, r.get(key))
                    R.add(M, "port owners afterwards", "n", impl.name, r["owners_after"])
                    R.add(
                        M,
                        "live sessions not visible afterwards",
                        "n",
                        impl.name,
                        r["alive"] - r["visible"],
                    )
                    if r["first_error"]:
                        R.note(
                            "failover", impl.name, f"{mode}: first error: {r['first_error'][:120]}"
                        )
                    if not r["recovered"]:
                        R.note(
                            "failover",
                            impl.name,
                            f"{mode}: no recovery within {W:.0f} s; then {r.get('revived_by')}: deliver {r.get('revive_deliver_ms')} ms",
                        )
                        break
            except Exception as e:
                R.note("failover", impl.name, f"{mode} failed: {e!r}")
            finally:
                await inst.stop()
