"""Domain classification tasks: the paper's Tables 2 and 3.

python experiments/domain.py                                     # generated benchmark
DATA=folder python experiments/domain.py scale=folder            # the tasks that the folder holds
python experiments/domain.py scale=paper                         # Table 2: 150K, all labels
python experiments/domain.py scale=paper_few_labels              # Table 3: 50K, 5,000 labels
"""

import sys

from gotd.cli.main import main

if __name__ == "__main__":
    sys.exit(main(["run", "experiment=domain", *sys.argv[1:]]))
