"""GLUE, two-stage: the paper's Table 4 (Table 12 with budget=20000).

python experiments/glue.py                                       # generated benchmark
DATA=folder python experiments/glue.py scale=folder              # real rows and passages
python experiments/glue.py selector=got_d,dsir budget=200,400    # any axis is a sweep

``gotd run experiment=glue …`` does the same.
"""

import sys

from gotd.cli.main import main

if __name__ == "__main__":
    sys.exit(main(["run", "experiment=glue", *sys.argv[1:]]))
