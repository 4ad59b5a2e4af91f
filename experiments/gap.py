"""A known gap with real text: which selector serves the half of a target that the base lacks?

python experiments/gap.py                                           # generated benchmark
DATA=folder python experiments/gap.py scale=folder                  # real passages
DATA=folder python experiments/gap.py scale=folder task=gap_math    # one missing domain
DATA=folder python experiments/gap.py scale=paper                   # bert-base, one GPU
"""

import sys

from gotd.cli.main import main

if __name__ == "__main__":
    sys.exit(main(["run", "experiment=gap", *sys.argv[1:]]))
