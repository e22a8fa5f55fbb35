"""Bits turned in stored checkpoints, and whether the worker that fetches one notices and uses the one before.

python bench/checkpoint_damage.py [--bits 300] [--seed 1]
"""

import subprocess
import sys
from pathlib import Path

if __name__ == "__main__":
    command = [sys.executable, "-m", "tests.support.damage", *sys.argv[1:]]
    sys.exit(subprocess.run(command, cwd=Path(__file__).parents[1], check=False).returncode)
