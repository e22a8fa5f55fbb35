"""Trainings killed at random steps against undisturbed ones, and kills while checkpoints are written.

python bench/exact_resume.py [--kills 50] [--writes 200] [--seed 1]
"""

import subprocess
import sys
from pathlib import Path

if __name__ == "__main__":
    command = [sys.executable, "-m", "tests.training.kills", *sys.argv[1:]]
    sys.exit(subprocess.run(command, cwd=Path(__file__).parents[1], check=False).returncode)
