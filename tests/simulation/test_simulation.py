"""Election and delivery under thousands of schedules of faults, each of which can be replayed.

Real, as it is shipped: `core`, `broker`, `gateway` (server, connections, framing, guard, live
protocol), `transports.live`, `node.node`, `node.leader`, `node.port`, `host.leading`,
`client.client`, `client.link`, `wire`, `session.inbound`, `session.repeats`, `tools.member`,
`tools.page` and the store in memory.

Modelled: the event loop and its time (`world`), sockets (`network`), files, locks, processes,
clocks, chance and the watchdog's thread (`machine`), the durability and fencing of `stores.sqlite`
(`disk`), and the agent with its program, which the session's server stands between (`agents`).

A schedule is one seed. `CLAUDE_PEERS_SIM_SEED=<n>` runs that one alone and prints its trace;
`CLAUDE_PEERS_SIM_RUNS=<n>` runs more, or fewer.
"""

import os
import random
import subprocess
import sys
from pathlib import Path

import pytest
from simulation.replay import replay
from simulation.schedule import Schedule

PARTS = 4
"""Tests that the schedules are spread over."""
RUNS = int(os.environ.get("CLAUDE_PEERS_SIM_RUNS", "2000"))
ONE = os.environ.get("CLAUDE_PEERS_SIM_SEED")
BUDGET = 600
"""Schedules in which a mutation must be noticed."""
TAIL = 60
"""Lines of a trace that are shown."""
HERE = Path(__file__).resolve().parents[1]
MUTATIONS = {
    "no fencing": "wrote in epoch",
    "no lock": "have the database open",
    "no dedupe": "was accepted twice",
    "told before durable": "is not durable",
    "leases survive": "are not delivered",
    "sent again backwards": "was overtaken",
}
"""What is broken on purpose, and the violation that must be noticed."""


def first_seed() -> int:
    """Return a seed of this run's own, and print it."""
    seed = random.SystemRandom().randrange(1 << 40)
    print(f"seeds from {seed} on")
    return seed


def fail(schedule: Schedule) -> None:
    """Fail with what was violated, and how to see it again."""
    seed = schedule.world.seed
    told = "\n".join(schedule.violations)
    trace = "\n".join(schedule.world.story().splitlines()[-TAIL:])
    pytest.fail(f"CLAUDE_PEERS_SIM_SEED={seed} replays this:\n{told}\n\n{trace}", pytrace=False)


@pytest.mark.timeout(0 if RUNS > 2000 else 300)
@pytest.mark.skipif(ONE is not None, reason="CLAUDE_PEERS_SIM_SEED asks for one schedule")
@pytest.mark.parametrize("part", range(PARTS))
def test_no_schedule_breaks_a_promise(part):
    first = first_seed()
    for seed in range(first, first + (RUNS + part) // PARTS):
        schedule = replay(seed)
        if schedule.violations:
            fail(schedule)


@pytest.mark.skipif(ONE is None, reason="CLAUDE_PEERS_SIM_SEED names no schedule")
def test_the_schedule_that_was_asked_for_breaks_no_promise():
    schedule = replay(int(ONE or 0))
    print(schedule.world.story())
    if schedule.violations:
        fail(schedule)


@pytest.mark.parametrize("mutation", MUTATIONS)
def test_a_broken_promise_is_noticed(mutation):
    first = first_seed()
    for seed in range(first, first + BUDGET):
        noticed = replay(seed, mutation).violations
        if any(MUTATIONS[mutation] in each for each in noticed):
            return
    pytest.fail(f"{mutation} was not noticed in {BUDGET} schedules")


def test_a_mutation_is_all_that_makes_its_schedule_fail():
    first, mutation = first_seed(), "no fencing"
    broken = next(
        seed for seed in range(first, first + BUDGET) if replay(seed, mutation).violations
    )
    assert replay(broken).violations == []


def test_a_seed_gives_the_same_trace_again():
    for seed in range(first := first_seed(), first + 20):
        assert replay(seed).world.story() == replay(seed).world.story()


def test_a_seed_gives_the_same_trace_in_other_processes():
    seed = first_seed()
    stories = [_elsewhere(seed, hashes) for hashes in ("1", "2")]
    assert stories == [replay(seed).world.story() + "\n"] * 2


def _elsewhere(seed: int, hashes: str) -> str:
    environ = {**os.environ, "PYTHONHASHSEED": hashes, "PYTHONPATH": str(HERE)}
    done = subprocess.run(
        [sys.executable, "-m", "simulation.replay", str(seed)],
        env=environ,
        cwd=HERE.parent,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        encoding="utf-8",
        timeout=60,
        check=True,
    )
    return done.stdout


def test_the_faults_that_matter_happen():
    seen, first = "", first_seed()
    wanted = (
        "leads in epoch 4",
        "fenced in epoch",
        "SIGKILL",
        "after SIGSTOP",
        "the watchdog bites",
        "a commit fails",
        "refused: agent",
        "no answer: agent",
        " again",
        "sever",
        "stranger",
        "step_clock",
    )
    for seed in range(first, first + BUDGET):
        seen += replay(seed).world.story()
        if all(each in seen for each in wanted):
            return
    pytest.fail(f"never: {[each for each in wanted if each not in seen]}")
