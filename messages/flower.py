"""The app for `celery -A stoker.messages.flower flower` (or `inspect`): made when this is imported, as Celery wants it.

Only the broker's settings are read: a process that looks at the queue need not be able to use the others.
"""

import os
import sys
from importlib.util import find_spec

from stoker.errors import SettingInvalid
from stoker.messages.app import app_from
from stoker.settings import load

if find_spec("flower"):  # where it is not installed, `inspect` works too
    from stoker.messages import endpoints

    endpoints.close()
try:
    app = app_from(load({name: text for name, text in os.environ.items() if name.startswith("STOKER_BROKER_URL")}))
except SettingInvalid as error:
    print(f"celery: {error}", file=sys.stderr)  # noqa: T201 - for whoever started it
    sys.exit(2)
