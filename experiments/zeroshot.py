"""Zero-shot, one stage: the paper's Tables 16 to 18. A causal model answers without fine-tuning.

python experiments/zeroshot.py                                       # generated benchmark
DATA=folder python experiments/zeroshot.py scale=folder              # AG News and BoolQ
python experiments/zeroshot.py selector=got_d embedder=tfidf_svd,token_mean   # as in Table 17
"""

import sys

from gotd.cli.main import main

if __name__ == "__main__":
    sys.exit(main(["run", "experiment=zeroshot", *sys.argv[1:]]))
