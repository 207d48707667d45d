"""``python -m minboost``: the ``minboost`` command."""

import sys

from .cli import main

sys.exit(main())
