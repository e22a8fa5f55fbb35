"""How soon a job runs elsewhere after ``kill -9`` of its worker, at a lease of two seconds.

python bench/recovery.py [--n 10]
"""

import subprocess
import sys
from pathlib import Path

if __name__ == "__main__":
    command = [sys.executable, "-m", "tests.faults.recovery", *sys.argv[1:]]
    sys.exit(subprocess.run(command, cwd=Path(__file__).parents[1], check=False).returncode)
