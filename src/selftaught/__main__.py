"""``python -m selftaught``, also what torchrun starts (``torchrun -m selftaught pretrain …``)."""

import sys

from selftaught.cli import main

sys.exit(main())
