"""Zero-shot, one step: the paper's Tables 16 to 18, a causal model that answers untrained.

python experiments/zeroshot.py                                       # embedded default
DATA=folder python experiments/zeroshot.py scale=folder              # AG News and BoolQ
python experiments/zeroshot.py selector=got_d embedder=hashed,token_mean   # Table 17's kind
"""

import sys

from gotd.runs.sweep import run

if __name__ == "__main__":
    sys.exit(run("zeroshot"))
