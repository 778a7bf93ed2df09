"""``python -m functional_lm``."""

import sys

from .cli.main import main

sys.exit(main())
