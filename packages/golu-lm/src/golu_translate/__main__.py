"""`python -m golu_translate`, which `accelerate launch -m` and `torchrun -m` use."""

import sys

from .cli import main

if __name__ == "__main__":
    sys.exit(main())
