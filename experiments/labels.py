"""Figure 1: how many labels a selection saves.

python experiments/labels.py                                     # generated benchmark
DATA=folder python experiments/labels.py scale=folder            # real rows and passages
python experiments/labels.py task=rte limits.labels=100,200,400  # any task, any numbers
"""

import sys

from gotd.cli.main import main

if __name__ == "__main__":
    sys.exit(main(["run", "experiment=labels", *sys.argv[1:]]))
