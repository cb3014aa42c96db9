"""Chaos and soak: the drivers of the fault tests, for as long as one likes, with their figures.

What is done and counted is in tests/faults/chaos.py and tests/faults/soak.py; here it is done to
each implementation that has a standby, in its own scratch machine.
"""

from __future__ import annotations

import asyncio, dataclasses, json, os, random, sys
from pathlib import Path

from results import R
from rig import IMPLS, OPT, Inst

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path += [ROOT, os.path.join(ROOT, "tests")]

from faults import chaos, soak
from support.machine import Machine

CHAOS, SOAK = 600, soak.HOUR
"""Seconds, unless --seconds says otherwise."""


async def drill(measure, run, told):
    """Run a drill on each implementation that elects, and print what `told` makes of it as JSON."""
    for impl in IMPLS:
        if not impl.d.get("standby"):
            continue
        inst = Inst(impl)
        machine = Machine(Path(inst.dir) / "machine")
        os.environ["CLAUDE_PEERS_TEST_COMMAND"] = json.dumps([inst.exp(a) for a in impl.server])
        tag, _, mark = inst.tag.partition("=")
        machine.environ |= {tag: mark}  # so that whatever happens here, cleanup() finds them
        machine.environ |= {
            k: inst.exp(v) for k, v in impl.d.get("env", {}).items() if k == "PYTHONPATH"
        }
        try:
            came = await asyncio.to_thread(run, machine)
            result = {"measure": measure, "implementation": impl.name, **told(came)}
            print(json.dumps(result, indent=1), flush=True)
            for name, value in flat(result):
                R.add(measure, name, "", impl.name, value)
        except Exception as e:
            R.note(measure, impl.name, f"failed: {e!r}")
        finally:
            try:
                await asyncio.to_thread(machine.close)
            except AssertionError as e:
                R.note(measure, impl.name, f"at the end: {e}")
            await inst.stop()


def flat(result, before=""):
    """Yield the numbers of a nested result with their paths."""
    for k, v in result.items():
        if isinstance(v, dict):
            yield from flat(v, f"{before}{k}: ")
        elif isinstance(v, (int, float)):
            yield before + k, float(v)


async def m_chaos():
    """Thirty sessions, the leader struck several times a second; messages counted all the while."""
    seed = random.SystemRandom().randrange(1 << 32) if OPT.seed is None else OPT.seed
    seconds = OPT.seconds or CHAOS
    print(f"seed {seed}", flush=True)

    def told(came):
        return {
            "seed": seed,
            "seconds": seconds,
            "acts": sum(came.acts.values()),
            "by_act": came.acts,
            "takeovers": len(came.kills),
            "takeover_ms": chaos.percentiles(came.kills),
            "handovers": len(came.handovers),
            "handover_ms": chaos.percentiles(came.handovers),
            "epochs": len(came.epochs),
            "leaders_per_epoch": max(map(came.epochs.count, came.epochs)),
            "messages": came.accepted,
            "refused": len(came.refused),
            "lost": came.total("lost"),
            "duplicated": came.total("duplicated"),
            "redelivered": came.total("redelivered"),
            "reordered": came.total("reordered"),
            "unasked": came.total("unasked"),
            "ledger_balanced": came.ledger["balanced"],
            "ledger_accepted": came.ledger["accepted"],
        }

    await drill("chaos", lambda machine: chaos.run(machine, seconds=seconds, seed=seed), told)


async def m_soak():
    """An hour's worth of traffic, and what memory, descriptors, threads and files did meanwhile."""
    seconds = OPT.seconds or SOAK

    def told(came):
        wrong = [a for a in came.accounts().values() if any(a)]
        return {
            "worth_seconds": seconds,
            "messages": came.messages,
            "expired": came.expiring,
            "restarts": came.restarts,
            "refused": len(came.refused),
            "lost": sum(a.lost for a in wrong),
            "duplicated": sum(a.duplicated for a in wrong),
            "redelivered": sum(a.redelivered for a in wrong),
            "unasked": sum(a.unasked for a in wrong),
            "ledger_balanced": came.ledger["balanced"],
            "series": soak.summary(came.series),
            "growing": [dataclasses.asdict(each) for each in soak.growing(came.series)],
        }

    await drill("soak", lambda machine: soak.run(machine, seconds=seconds), told)
