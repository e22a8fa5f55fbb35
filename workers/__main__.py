"""``python -m stoker.workers``: one worker."""

import sys

from stoker.workers.program import main

sys.exit(main())
