"""Selectors by spaces: does the selector decide, or the space in which it measures?

python experiments/grid.py                                           # generated benchmark
DATA=folder python experiments/grid.py scale=folder                  # real passages
"""

import sys

from gotd.cli.main import main

if __name__ == "__main__":
    sys.exit(main(["run", "experiment=grid", *sys.argv[1:]]))
