#!/usr/bin/env python3
"""peerbench: paired measurements of claude-peers beside a floor (Linux, Python 3.11+, stdlib only).

usage: peerbench.py MEASURE [MEASURE...] [--config FILE] [--only a,b] [--json FILE] [--netns] [--quick]
       peerbench.py chaos [--seconds 600] [--seed N] | soak [--seconds 3600]
measures: goals (= initialize roles push takeover), crowd host transports chaos soak
          floor startup herd idle latency http stored aged failover fanout, all (but chaos and soak)
Implementations come from a TOML file (ours.toml explains it). Rounds are interleaved over the
implementations; a ratio is the median of the per-round ratios against the first one named.
"""

from __future__ import annotations

import argparse, asyncio, fcntl, json, os, shutil, signal, socket, struct, subprocess, sys, time, tomllib

import brokers, drills, floors, goals, hosts, sessions, transports
from procs import KNOWN, LIBC, RUN, busy_s, kill, now, own_s, pids_of, reap
from results import R
from rig import HERE, IMPLS, NOISY, OPT, SCRATCH, Impl

GOALS = ("initialize", "roles", "push", "takeover")
MEASURES = {  # and the seconds each may take
    "initialize": (goals.m_initialize, 300),
    "roles": (goals.m_roles, 600),
    "push": (goals.m_push, 300),
    "takeover": (goals.m_takeover, 900),
    "crowd": (goals.m_crowd, 1800),
    "host": (hosts.m_host, 900),
    "transports": (transports.m_transports, 300),
    "floor": (floors.m_floor, 240),
    "startup": (sessions.m_startup, 600),
    "herd": (sessions.m_herd, 300),
    "idle": (sessions.m_idle, 1500),
    "latency": (sessions.m_latency, 600),
    "http": (brokers.m_http, 600),
    "stored": (brokers.m_stored, 900),
    "aged": (brokers.m_aged, 600),
    "failover": (sessions.m_failover, 1500),
    "fanout": (brokers.m_fanout, 240),
}
DRILLS = {  # only where they are asked for by name
    "chaos": (drills.m_chaos, 7200),
    "soak": (drills.m_soak, 7200),
}


def netns():
    """A private network namespace with only the loopback: nothing can leave the machine."""
    if LIBC.unshare(0x40000000) != 0:
        sys.exit("peerbench: --netns needs root (or run it under: unshare -rn)")
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    fl = struct.unpack("16sh", fcntl.ioctl(s, 0x8913, struct.pack("16sh", b"lo", 0))[:18])[1]
    fcntl.ioctl(s, 0x8914, struct.pack("16sh", b"lo", fl | 1))
    s.close()


def cleanup():
    for sig in (signal.SIGCONT, signal.SIGTERM, signal.SIGKILL):
        ps = pids_of(RUN) - {os.getpid()}
        for p in ps:
            kill(p, sig)
        if sig != signal.SIGCONT and ps:
            time.sleep(0.5)
        for p in list(KNOWN.values()):
            p.poll()
    reap()
    shutil.rmtree(SCRATCH, ignore_errors=True)


async def main():
    meta = {
        "python": sys.version.split()[0],
        "cpus": os.cpu_count(),
        "kernel": os.uname().release,
        "load_before": os.getloadavg(),
        "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "impls": [i.name for i in IMPLS],
        "quick": OPT.quick,
        "seconds": {},
    }
    for name in OPT.measures:
        fn, limit = (MEASURES | DRILLS)[name]
        t, b0, o0 = now(), busy_s(), own_s()
        NOISY[0] = 0
        print(f"== {name} (limit {limit} s)", flush=True)
        try:
            await asyncio.wait_for(fn(), limit)
        except asyncio.TimeoutError:
            R.note(name, "*", f"stopped at its {limit} s limit")
        except Exception as e:
            R.note(name, "*", f"failed: {e!r}")
            if OPT.debug:
                raise
        reap()
        meta["seconds"][name] = round(now() - t, 1)
        meta.setdefault("foreign_cores", {})[name] = round(
            max(0, (busy_s() - b0) - (own_s() - o0)) / (now() - t), 2
        )
        meta.setdefault("turns_without_calm", {})[name] = NOISY[0]
        meta["load_after"] = os.getloadavg()
        if OPT.json:
            with open(OPT.json, "w") as f:
                json.dump(
                    {
                        "meta": meta,
                        "results": R.json(),
                        "notes": R.notes,
                        "failover_detail": getattr(R, "detail", {}),
                    },
                    f,
                    indent=1,
                )
    print(R.table([i.name for i in IMPLS]))
    print(goals.goals_table())
    print(
        "\nfirst column = reference; cells: median [min..max] xratio to the reference; load average before",
        meta["load_before"],
        "after",
        meta["load_after"],
    )
    print(
        "cores used by other people's processes during each measure:",
        meta.get("foreign_cores"),
        "; turns started on a busy machine:",
        meta.get("turns_without_calm"),
    )


def options():
    ap = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    ap.add_argument(
        "measures", nargs="+", choices=["goals", *MEASURES, *DRILLS, "all"], metavar="MEASURE"
    )
    ap.add_argument("--config", default=os.path.join(HERE, "ours.toml"))
    ap.add_argument(
        "--only",
        help="comma-separated implementation names, in the wanted order; the first is the reference",
    )
    ap.add_argument("--json", help="write all values there")
    ap.add_argument("--reps", type=int, default=5)
    ap.add_argument("--idle-seconds", type=float, default=20)
    ap.add_argument(
        "--netns",
        action="store_true",
        help="run in a private loopback-only network namespace (root)",
    )
    ap.add_argument(
        "--calm",
        type=float,
        default=3.0,
        help="seconds to wait, before each turn, for the machine to be quiet",
    )
    ap.add_argument(
        "--seconds",
        type=float,
        help="of chaos (default 600), or worth of traffic in soak (default 3600)",
    )
    ap.add_argument("--seed", type=int, help="repeats the choices of chaos")
    ap.add_argument("--quick", action="store_true")
    ap.add_argument("--debug", action="store_true")
    OPT.__dict__.update(vars(ap.parse_args()))
    names = []
    for m in OPT.measures:
        names += MEASURES if m == "all" else GOALS if m == "goals" else [m]
    OPT.measures = list(dict.fromkeys(names))


def implementations():
    with open(OPT.config, "rb") as f:
        found = [Impl(d) for d in tomllib.load(f).get("impl", [])]
    if OPT.only:
        by = {i.name: i for i in found}
        found = [by[n] for n in OPT.only.split(",")]
    for i in found:
        if i.missing():
            print(f"peerbench: {i.name} left out: set {', '.join(i.missing())}")
        else:
            IMPLS.append(i)


def repository():
    """What every scratch machine starts from: a git repository with one empty commit."""
    os.makedirs(SCRATCH + "/repo")
    g = ["git", "-C", SCRATCH + "/repo", "-c", "user.name=b", "-c", "user.email=b@localhost"]
    if shutil.which("git"):
        for a in (["init", "-q"], ["commit", "-q", "--allow-empty", "-m", "x"]):
            subprocess.run(g + a, check=False, env={"PATH": os.environ["PATH"], "HOME": SCRATCH})


if __name__ == "__main__":
    options()
    implementations()
    if OPT.netns:
        netns()
    LIBC.prctl(
        36, 1, 0, 0, 0
    )  # PR_SET_CHILD_SUBREAPER: daemons the implementations leave behind stay our children
    signal.signal(signal.SIGTERM, lambda *a: sys.exit(143))
    repository()
    try:
        asyncio.run(main())
    except KeyboardInterrupt:
        print("interrupted")
    finally:
        cleanup()
