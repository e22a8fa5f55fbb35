"""``python -m tests.faults``: hurt a Stoker in every way we know, and check that it kept its promises.

--seed S --jobs N --faults M --seconds T   the run; the same seed gives the same schedule
--long                                     1,000 jobs, 200 faults
--broken fence|checkpoint|claim            a build without one guard: passes only if the checker is red
--history FILE                             keep the history as JSON lines, and all logs beside it
"""

import argparse
import secrets
import signal
import sys
from dataclasses import replace
from pathlib import Path

from tests.faults import broken, runner
from tests.faults.catalogue import FAULTS
from tests.faults.report import say
from tests.faults.runner import Size

SHORT = Size(seed=0, jobs=24, faults=6, seconds=40.0, apis=1)
LONG = Size(seed=0, jobs=1000, faults=200, seconds=3600.0)


def main() -> int:
    """Run; 0 if all is as it should be."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, help="default: by chance")
    parser.add_argument("--jobs", type=int)
    parser.add_argument("--faults", type=int)
    parser.add_argument("--seconds", type=float)
    parser.add_argument("--long", action="store_true")
    parser.add_argument("--broken", choices=[*broken.BUILDS, "all"])
    parser.add_argument("--only", action="append", choices=list(FAULTS), metavar="FAULT", default=[])
    parser.add_argument("--history", type=Path)
    given = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # whatever ends us, everything is cleared up
    seed = given.seed if given.seed is not None else secrets.randbelow(10**6)
    builds = tuple(broken.BUILDS) if given.broken == "all" else (given.broken,)
    if given.broken:
        say(f"seed {seed}")
        green = runner.run_broken(builds, seed)
        say(f"{len(builds) - green} passed, {green} failed, 0 skipped")
        return int(green > 0)
    base = LONG if given.long else SHORT
    one = (list(broken.BUILDS)[seed % len(broken.BUILDS)],)
    size = replace(
        base,
        seed=seed,
        jobs=given.jobs or base.jobs,
        faults=given.faults or base.faults,
        seconds=given.seconds or base.seconds,
        history=given.history,
        only=tuple(given.only),
        broken=() if given.only else tuple(broken.BUILDS) if given.long else one,
    )
    say(f"seed {seed}: at least {size.jobs} jobs, {size.faults} faults; again: python -m tests.faults --seed {seed}")
    verdict = runner.run(size)
    runner.tell(verdict)
    return int(verdict.red)


if __name__ == "__main__":
    sys.exit(main())
