"""Runs one schedule and prints what happened: `python -m simulation.replay SEED [MUTATION]`."""

import sys

from simulation.machine import installed
from simulation.schedule import Schedule


def replay(seed: int, mutation: str = "") -> Schedule:
    """Return the schedule of a seed after it has run."""
    with installed():
        return Schedule(seed, mutation).run()


def main() -> None:
    """Print the trace of the schedule that the command line names."""
    print(replay(int(sys.argv[1]), *sys.argv[2:3]).world.story())


if __name__ == "__main__":
    main()
