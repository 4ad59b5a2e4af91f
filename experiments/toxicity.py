"""Detoxification: the paper's Tables 1, 6 and 7, with a pinned scorer.

python experiments/toxicity.py                                  # embedded default
DATA=folder python experiments/toxicity.py scale=folder         # real prompts and comments
python experiments/toxicity.py selector=got_d budget=100,400    # any axis is a sweep
"""

import sys

from gotd.sweep import run

if __name__ == "__main__":
    sys.exit(run("toxicity"))
