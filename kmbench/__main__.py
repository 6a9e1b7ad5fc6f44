"""``python -m kmbench``."""

import sys

from kmbench.cli.app import main

sys.exit(main())
