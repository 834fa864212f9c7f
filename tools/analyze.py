"""Looks into activations and finished runs, as `golu-core analyze` does: python tools/analyze.py gates --out shapes"""

import sys

from golu_core.studies.analyze import main

if __name__ == "__main__":
    sys.exit(main())
