"""GLUE, two-stage: the paper's Table 4 (12 with budget=20000), and what is left when it is fair.

python experiments/glue.py                                       # embedded default
DATA=folder python experiments/glue.py scale=folder              # real rows and passages
python experiments/glue.py selector=got_d,dsir budget=200,400    # any axis is a sweep
"""

import sys

from gotd.runs.sweep import run

if __name__ == "__main__":
    sys.exit(run("glue"))
