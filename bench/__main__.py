"""All numbers that README and docs quote, one table after another: ``python -m bench [NAME …]``.

Each is a script of its own with options of its own; see ``python bench/NAME.py --help``. Machines differ and are
noisy: quote the ratios and medians, with the machine's line that each table starts with.
"""

import subprocess
import sys
from pathlib import Path

FOLDER = Path(__file__).parent


def main(wanted: list[str]) -> int:
    """Run the named scripts, or all; returns how many failed."""
    scripts = {path.stem: path for path in sorted(FOLDER.glob("*.py")) if not path.stem.startswith("_")}
    unknown = [name for name in wanted if name not in scripts]
    if unknown:
        print(f"no such table: {', '.join(unknown)}; known: {', '.join(scripts)}", file=sys.stderr)
        return 2
    failed = []
    for name in wanted or scripts:
        print(f"\n== {name}", flush=True)
        if subprocess.run([sys.executable, str(scripts[name])], check=False).returncode != 0:
            failed.append(name)
    if failed:
        print(f"\nfailed: {', '.join(failed)}", file=sys.stderr)
    return min(len(failed), 1)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
