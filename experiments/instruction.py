"""Instruction tuning on selected prompts and responses: TSDS's first experiment.

python experiments/instruction.py                                  # generated benchmark
DATA=folder python experiments/instruction.py scale=folder         # real rows, six targets
DATA=folder python experiments/instruction.py scale=folder budget=50 seed=11   # 5 % of the pool
"""

import sys

from gotd.runs.sweep import run

if __name__ == "__main__":
    sys.exit(run("instruction"))
