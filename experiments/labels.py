"""Figure 1: how many labels a selection saves.

python experiments/labels.py                                     # generated benchmark
DATA=folder python experiments/labels.py scale=folder            # real rows and passages
python experiments/labels.py task=rte limits.labels=100,200,400  # any task, any numbers
"""

import sys

from gotd.runs.sweep import run

if __name__ == "__main__":
    sys.exit(run("labels"))
