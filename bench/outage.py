"""What it costs when Redis is down, when all messages are deleted, and when PostgreSQL is down under running jobs.

python bench/outage.py [--posts 50] [--seconds 10]
"""

import subprocess
import sys
from pathlib import Path

if __name__ == "__main__":
    command = [sys.executable, "-m", "tests.faults.outage", *sys.argv[1:]]
    sys.exit(subprocess.run(command, cwd=Path(__file__).parents[1], check=False).returncode)
