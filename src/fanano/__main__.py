"""``python -m fanano`` is the command ``fanano``."""

import sys

from fanano.cli import main

sys.exit(main())
