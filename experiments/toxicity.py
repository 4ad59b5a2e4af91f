"""Detoxification: the paper's Table 1 with a fixed scorer; Tables 6 and 7 by one override.

python experiments/toxicity.py                                  # generated benchmark
DATA=folder python experiments/toxicity.py scale=folder         # real prompts and comments
python experiments/toxicity.py scale=paper budget=10000,20000 evaluation=toxicity_utility_hub
python experiments/toxicity.py scale=paper budget=10000,20000 evaluation=toxicity_two_scorers
python experiments/toxicity.py selector=got_d budget=100,400    # any axis is a sweep
"""

import sys

from gotd.cli.main import main

if __name__ == "__main__":
    sys.exit(main(["run", "experiment=toxicity", *sys.argv[1:]]))
