"""Collects finished runs into tables, as `golu-core aggregate` does: python tools/aggregate.py runs --out report"""

import sys

from golu_core.studies.aggregate import main

if __name__ == "__main__":
    sys.exit(main())
