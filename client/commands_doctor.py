"""`stoker doctor`: look at everything that is needed, and say how to fix what is not there."""

import click

from stoker.client.checks import CHECKS, Finding
from stoker.client.exits import ERROR, OK
from stoker.client.screen import as_json, console, print_json, safe

MARKS = {"ok": "ok      ", "note": "note    ", "problem": "PROBLEM "}


@click.command()
@as_json
def doctor(json_wanted: bool) -> None:
    """Check Python, packages, PostgreSQL, Redis, disk, ports, confinement, server, token and workers.

    Exit code 1 if something that is needed here is missing; notes do not count.
    """
    findings = [finding for check in CHECKS for finding in check()]
    healthy = all(finding.grade != "problem" for finding in findings)
    if json_wanted:
        shown = [{"check": f.name, "grade": f.grade, "found": f.found, "fix": f.fix} for f in findings]
        print_json({"healthy": healthy, "checks": shown})
    else:
        for finding in findings:
            _print(finding)
    raise click.exceptions.Exit(OK if healthy else ERROR)


def _print(finding: Finding) -> None:
    style = {"ok": "green", "note": "yellow", "problem": "red"}[finding.grade]
    screen = console()
    screen.print(MARKS[finding.grade], style=style, end="", markup=False)
    screen.print(safe(f"{finding.name:<12} {finding.found}"), markup=False, soft_wrap=True)
    if finding.fix and finding.grade != "ok":
        screen.print(safe(f"{'':<21}fix: {finding.fix}"), markup=False, soft_wrap=True)
