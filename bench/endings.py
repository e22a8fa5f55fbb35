"""How soon a job ends that is cancelled, and a worker that is told to stop: ``kill -TERM``, its jobs queued again.

python bench/endings.py [--n 20]
"""

import subprocess
import sys
from pathlib import Path

if __name__ == "__main__":
    command = [sys.executable, "-m", "tests.faults.endings", *sys.argv[1:]]
    sys.exit(subprocess.run(command, cwd=Path(__file__).parents[1], check=False).returncode)
