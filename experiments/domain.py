"""Domain NLU: the paper's Tables 2 and 3, and what is left of them when they are fair.

python experiments/domain.py                                     # embedded default
DATA=folder python experiments/domain.py scale=folder            # the tasks that the folder holds
python experiments/domain.py scale=paper                         # Table 2: 150K, all labels
python experiments/domain.py scale=paper_few_labels              # Table 3: 50K, 5,000 labels
"""

import sys

from gotd.runs.sweep import run

if __name__ == "__main__":
    sys.exit(run("domain"))
