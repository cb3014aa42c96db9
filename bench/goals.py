"""Goals: what the product promises to its users in milliseconds and megabytes, beside the floor.

Every figure is taken from the floor and from the product in alternating rounds of one run. The
first implementation of the configuration is the floor; each of the others gets a table.
"""

from __future__ import annotations

import asyncio, os, random, signal

import hosts
from floors import ECHO
from procs import descend, gone, kill, mem_mb, now, wakeups
from results import R, fmt, q
from rig import IMPLS, OPT, Impl, Inst, Session, Stream, calm, drain, until

ASYNCIO = "asyncio echo (json, asyncio)"
ROLES = ("follower", "standby", "leader")
SESSIONS, CROWD = 10, 30
MOST_P99 = 100
KILLS = 5
BROKER = "broker: kill to the next answer on the port"
SENDER = "sender: kill to the next answered call"
RECEIVER = "receiver: kill to the next message"


# ---------------------------------------------------------------- start to the answer to initialize
async def first_answer(inst):
    s = Session(inst, len(inst.sessions))
    inst.sessions.append(s)
    s.spawn()
    await s.init()
    return 1000 * (s.t_init - s.t0)


async def m_initialize():
    """Start of a session, alone and beside running ones, and of a bare asyncio server."""
    M, each = "goals: start to the answer to initialize", 4
    echo = Impl({"name": "asyncio echo", "server": ["{python}", "-I", "-c", ECHO[ASYNCIO]]})
    for rep in range(OPT.reps):
        for impl in (echo, *IMPLS):
            inst = Inst(impl)
            try:
                await calm()
                first = await first_answer(inst)
                if impl is not echo:
                    R.add(M, "first session on the machine", "ms", impl.name, first)
                    await until(inst.listening, 5)
                    await inst.settle()
                for _ in range(each):
                    await calm()
                    R.add(M, "further session", "ms", impl.name, await first_answer(inst))
            except Exception as e:
                R.note("initialize", impl.name, f"failed: {e!r}")
            finally:
                await inst.stop()


# ---------------------------------------------------------------- memory, wake-ups and exit, by role
async def m_roles():
    """Ten idle sessions: PSS, USS and wake-ups of each role; then each role's stdin is closed."""
    M = f"goals: idle with {SESSIONS} sessions"
    for rep in range(2 if OPT.quick else 3):
        for impl in IMPLS:
            inst = Inst(impl)
            try:
                await inst.cluster(SESSIONS)
                await inst.settle(4)
                by = await inst.roles()
                w0, t0 = {s: wakeups(descend(s.p.pid)) for s in inst.sessions}, now()
                await asyncio.sleep(OPT.idle_seconds)
                rate = {s: (wakeups(descend(s.p.pid)) - w) / (now() - t0) for s, w in w0.items()}
                for role in ROLES:
                    for s in by[role]:
                        rss, pss, uss = mem_mb(descend(s.p.pid))
                        R.add(M, f"PSS of a {role}", "MB", impl.name, pss)
                        R.add(M, f"USS of a {role}", "MB", impl.name, uss)
                        R.add(M, f"wake-ups of a {role}", "1/s", impl.name, rate[s])
                before = sum(mem_mb(descend(s.p.pid))[1] for s in inst.sessions)
                for _ in range(3):
                    await inst.add()
                await inst.settle(3)
                after = sum(mem_mb(descend(s.p.pid))[1] for s in inst.sessions)
                R.add(M, "PSS that one more session adds", "MB", impl.name, (after - before) / 3)
                for role in ROLES:
                    for s in by[role][-3:]:
                        await inst.settle()
                        await calm()
                        t = now()
                        s.p.stdin.close()
                        end = await gone(s.p, 2)
                        R.add(
                            M,
                            f"exit of a {role} after EOF",
                            "ms",
                            impl.name,
                            1000 * (end - t) if end else None,
                        )
            except Exception as e:
                R.note("roles", impl.name, f"failed: {e!r}")
            finally:
                await inst.stop()


# ---------------------------------------------------------------- tool call to channel notification
async def m_push():
    """From tools/call on A's stdin to the channel notification on B's stdout, messages spaced."""
    M, insts, pooled = "goals: tools/call at A to channel notification at B", {}, {}
    try:
        for impl in IMPLS:
            inst = Inst(impl)
            try:
                await inst.cluster(3)
                insts[impl.name] = await inst.settle(1.5)
            except Exception as e:
                R.note("push", impl.name, f"failed: {e!r}")
                await inst.stop()
        for chunk in range(4 if OPT.quick else 8):
            for name, inst in insts.items():
                st = Stream(inst.sessions[1], inst.sessions[2])
                await calm()
                for _ in range(50):
                    st.send()
                    await asyncio.sleep(random.uniform(0.02, 0.06))
                await drain(st, 6)
                pooled.setdefault(name, []).extend(st.lat())
                R.add(M, "p50 (rounds of 50)", "ms", name, q(st.lat(), 0.5))
                R.add(
                    M,
                    "tool answer p50",
                    "ms",
                    name,
                    q([1000 * (st.resp[k][0] - st.sent[k]) for k in st.acked()], 0.5),
                )
                R.add(
                    M,
                    "lost + duplicated + reordered + refused",
                    "n",
                    name,
                    sum(st.summary()[k] for k in ("lost", "dup", "reordered", "errors")),
                )
        for name, xs in pooled.items():
            R.add(M, "p99 (pooled)", "ms", name, q(xs, 0.99))
            R.add(M, "max (pooled)", "ms", name, max(xs, default=None))
    finally:
        for i in insts.values():
            await i.stop()


# ---------------------------------------------------------------- takeover
async def answering(inst):
    """Ask on new connections until somebody answers; return the moment."""
    while True:
        try:
            await inst.get("/health", 0.5)
            return now()
        except (OSError, asyncio.TimeoutError, asyncio.IncompleteReadError, ValueError):
            await asyncio.sleep(0.002)


async def takeover(inst, rate=50, ask=False):
    """Kill the port's owner under load. Gaps count from the kill, to a message sent right after it.

    With `ask`, a stranger asks the port as well, which costs both a little.
    """
    own = inst.owners()
    rest = [s for s in inst.sessions if s.alive() and not descend(s.p.pid) & own]
    a, b = random.sample(rest, 2)
    for s in (a, b):
        s.id = None
        await s.peer_id()
    st, stop = Stream(a, b), asyncio.Event()

    async def pump():
        while not stop.is_set():
            st.send()
            await asyncio.sleep(1 / rate)

    task = asyncio.create_task(pump())
    await asyncio.sleep(random.uniform(0.5, 0.6))
    tf = now()
    for p in own:
        kill(p, signal.SIGKILL)
    probe = st.n
    st.send()
    broker = asyncio.create_task(asyncio.wait_for(answering(inst), 8)) if ask else None
    ok = await until(lambda: probe in st.got and probe in st.resp, 8, 0.005)
    await asyncio.sleep(0.5)
    stop.set()
    await task
    await drain(st, 6)
    del b.streams[st.tag]
    answered = [r[0] for k, r in st.resp.items() if k >= probe and r[1]]
    arrived = sorted(t for v in st.got.values() for t in v)
    silent = [y - x for x, y in zip(arrived, arrived[1:]) if y > tf]
    asked = (await asyncio.gather(broker, return_exceptions=True))[0] if broker else None
    return {
        "broker": 1000 * (asked - tf) if isinstance(asked, float) else None,
        "sender": 1000 * (min(answered) - tf) if answered else None,
        "receiver": 1000 * (st.got[probe][0] - tf) if probe in st.got else None,
        "silence": 1000 * max(silent) if silent else None,
        "recovered": bool(ok),
        **st.summary(),
    }


async def m_takeover():
    """SIGKILL of the port's owner among ten sessions, again and again, the next one once all is calm."""
    await takeovers("goals", SESSIONS)


async def m_crowd():
    """The same among ten sessions and among thirty, to be compared; the broker is asked, too."""
    for count in (SESSIONS, CROWD):
        await takeovers("crowd", count, ask=True)


def crowd(count, table="crowd"):
    return f"{table}: takeover after SIGKILL ({count} sessions, 50 messages/s)"


async def takeovers(table, count, ask=False):
    M = crowd(count, table)
    for rep in range(2 if OPT.quick else OPT.reps):
        for impl in IMPLS:
            inst = Inst(impl)
            try:
                await inst.cluster(count)
                await inst.settle(1.5)
                for _ in range(KILLS):
                    await calm()
                    r = await takeover(inst, ask=ask)
                    if ask:
                        R.add(M, BROKER, "ms", impl.name, r["broker"])
                    R.add(M, SENDER, "ms", impl.name, r["sender"])
                    R.add(M, RECEIVER, "ms", impl.name, r["receiver"])
                    R.add(M, "receiver: longest silence", "ms", impl.name, r["silence"])
                    R.add(
                        M,
                        "lost + duplicated + reordered + refused",
                        "n",
                        impl.name,
                        sum(r[k] for k in ("lost", "dup", "reordered", "errors", "unanswered")),
                    )
                    if not r["recovered"]:
                        R.note("takeover", impl.name, f"no recovery within 8 s: {r}")
                        break
                    if r["first_error"]:
                        R.note("takeover", impl.name, r["first_error"])
                    await inst.settle(1.2)
            except Exception as e:
                R.note("takeover", impl.name, f"failed: {e!r}")
            finally:
                await inst.stop()


# ---------------------------------------------------------------- the table
def values(metric, name, table="goals"):
    """What was measured, and whether a round had nothing to measure (no recovery, no exit)."""
    for (m, k), row in R.rows.items():
        if m.startswith(table) and k == metric:
            return [v for v in row["values"].get(name, []) if v is not None], None in row[
                "values"
            ].get(name, [])
    return [], False


def paired(metric, name, floor):
    """The median of the rounds' own ratios, which drift of the machine does not move."""
    row = next((r for (m, k), r in R.rows.items() if m.startswith("goals") and k == metric), None)
    return R.ratio(row["values"], floor, name) if row else None


def med(metric, who, table="goals"):
    return R.med(values(metric, who, table)[0])


def top(metric, who, table="goals"):
    found, none = values(metric, who, table)
    return None if none else max(found, default=None)


def figures(name, floor):
    """Rows of (goal, unit, measured, floor, ratio, whether it is met or None for no goal)."""

    def times(goal, unit, most, metric, *, of=med, beside=floor, ratio=None):
        got, base = of(metric, name), of(metric, beside)
        if ratio is None and got is not None and base:
            ratio = got / base
        return goal, unit, got, base, ratio, most and ratio is not None and ratio <= most

    def within(goal, unit, most, metric, role, *, of=med):
        # The floor has no standby: its followers stand beside ours.
        got, base = (
            of(metric % role, name),
            of(metric % ("leader" if role == "leader" else "follower"), floor),
        )
        return (
            goal,
            unit,
            got,
            base,
            got / base if got is not None and base else None,
            got is not None and got <= most,
        )

    yield times(
        "initialize <= 1.25x asyncio",
        "ms",
        1.25,
        "further session",
        beside="asyncio echo",
        ratio=paired("further session", name, "asyncio echo"),
    )
    for role, most in (("follower", 14), ("standby", 18), ("leader", 18)):
        yield within(f"PSS of a {role} <= {most} MB", "MB", most, "PSS of a %s", role)
    yield times(
        "push p50 <= 1.6x",
        "ms",
        1.6,
        "p50 (rounds of 50)",
        ratio=paired("p50 (rounds of 50)", name, floor),
    )
    yield times("push p99 (no goal)", "ms", None, "p99 (pooled)")
    for side, metric in (
        ("sender", SENDER),
        ("receiver", RECEIVER),
    ):
        yield times(f"takeover, {side}, median <= 1.2x", "ms", 1.2, metric)
        yield times(f"takeover, {side}, maximum <= 2x", "ms", 2.0, metric, of=top)
    for role in ROLES:
        yield within(f"wake-ups of a {role} <= 1/s", "1/s", 1.0, "wake-ups of a %s", role)
    for role in ROLES:
        yield within(
            f"exit of a {role} after EOF <= 50 ms (maximum)",
            "ms",
            50,
            "exit of a %s after EOF",
            role,
            of=top,
        )


def crowd_figures(name, floor):
    """The same rows for the take-over in a crowd: beside the floor, and beside ten sessions."""
    for count in (SESSIONS, CROWD):
        for side, metric in (("broker", BROKER), ("sender", SENDER)):
            for word, most, of in (("median", 1.2, med), ("maximum", 2.0, top)):
                got, base = (of(metric, who, crowd(count)) for who in (name, floor))
                ratio = got / base if got is not None and base else None
                goal = f"takeover of {count}, {side}, {word} <= {most:g}x the floor's"
                yield goal, "ms", got, base, ratio, ratio is not None and ratio <= most
    for side, metric in (("broker", BROKER), ("sender", SENDER)):
        for word, of in (("median", med), ("maximum", top)):
            got, base = (of(metric, name, crowd(count)) for count in (CROWD, SESSIONS))
            ratio = got / base if got is not None and base else None
            goal = f"takeover of {CROWD}, {side}, {word} <= 2x that of {SESSIONS} (in the floor's column)"
            yield goal, "ms", got, base, ratio, ratio is not None and ratio <= 2


def host_figures(name, _floor):
    """The same rows for the leader's own tools; the idle broker stands in the floor's column."""
    for tool in (*hosts.TOOLS, "all four"):
        got, base = (
            med(f"{tool}: p99", name, hosts.table(where)) for where in (hosts.CROWDED, hosts.IDLE)
        )
        ratio = got / base if got is not None and base else None
        goal = f"host, {tool}, p99 <= {MOST_P99} ms (idle broker in the floor's column)"
        yield goal, "ms", got, base, ratio, got is not None and got <= MOST_P99


def goals_table():
    """One table for each implementation but the floor, with what was measured."""
    out = []
    for impl in IMPLS[1:] or IMPLS:
        rows = [
            r
            for told in (figures, crowd_figures, host_figures)
            for r in told(impl.name, IMPLS[0].name)
            if r[2] is not None or r[3] is not None
        ]
        if not rows:
            continue
        out += [
            "",
            f"| goals: {impl.name} | unit | measured | floor | ratio | met |",
            "|---|---|---|---|---|---|",
        ]
        for goal, unit, got, base, ratio, met in rows:
            show = lambda v: "-" if v is None else fmt(float(v))
            out.append(
                f"| {goal} | {unit} | {show(got)} | {show(base)} | {'-' if ratio is None else f'x{ratio:.2f}'} | "
                f"{'' if met is None else 'yes' if met else 'NO'} |"
            )
    return "\n".join(out)
