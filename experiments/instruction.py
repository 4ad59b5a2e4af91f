"""Instruction tuning on selected prompts and responses: TSDS's first experiment.

python experiments/instruction.py                                  # generated benchmark
DATA=folder python experiments/instruction.py scale=folder         # real rows, six targets
DATA=folder python experiments/instruction.py scale=folder budget=50 seed=11   # 5 % of the pool
"""

import sys

from gotd.cli.main import main

if __name__ == "__main__":
    sys.exit(main(["run", "experiment=instruction", *sys.argv[1:]]))
