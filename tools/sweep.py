"""Trains a study, as `golu-core sweep` does: python tools/sweep.py quick"""

import sys

from golu_core.studies.sweep import main

if __name__ == "__main__":
    sys.exit(main())
