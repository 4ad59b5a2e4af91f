"""The arguments of ``gotd compare``. Imports nothing heavy."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from gotd.cli.select_arguments import add_rows, named_path

_EXAMPLES = """
examples:
  gotd compare --train train.csv --test test.csv --candidates pool/ --model bert-base-uncased \\
      --methods none,random,dsir,got_d --budget 5000 --seeds 10
  gotd compare --target chat.jsonl --outcome loss --candidates pool/ --model gpt2 \\
      --methods random,dsir,got_d --budget 5000 --seeds 10

Files are those of gotd select, in the same formats and shapes. The cost is printed first. What is
done is kept in --store: run the same command again to go on after an interruption.
"""


def add_compare(commands: Any, run: Any) -> None:
    """Add ``gotd compare`` to the commands."""
    parser = commands.add_parser(
        "compare",
        help="compare methods on your own task: scores, paired tests and a page",
        description="Compare selection methods by what they do to a model on your own task.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument_group("needed").add_argument
    add("--train", nargs="+", metavar="FILE", help="labelled rows; their texts are the target")
    add("--test", nargs="+", metavar="FILE", help="labelled rows that are scored")
    add("--target", nargs="+", metavar="FILE", help="rows without labels, instead of both")
    names = "files, folders, patterns, URLs (s3://…) or hub:namespace/name[:config][:split]"
    add("--candidates", nargs="+", required=True, metavar="FILE", help=names)
    add("--budget", required=True, metavar="N[,N]", help="rows to choose")

    add = parser.add_argument_group("how").add_argument
    outcome = "labels: score of --test after fine-tuning; loss: on held-out rows of --target"
    add("--outcome", choices=("labels", "loss"), help=outcome + " (by what is given)")
    model = "folder or Hub name of the model to train (a small BERT that is built here)"
    add("--model", metavar="NAME", help=model)
    methods = "methods of gotd select, and none (none,random,dsir,got_d)"
    add("--methods", default="none,random,dsir,got_d", metavar="NAME[,NAME]", help=methods)
    add("--seeds", type=int, default=5, metavar="N", help="runs of each method (5)")
    setting = "a setting of an experiment, such as fine_tune.epochs=3 or embedder=minilm"
    add("--set", action="append", default=[], metavar="KEY=VALUE", help=setting)

    add = add_rows(parser)
    label = "column of the labels: names or whole numbers (label)"
    add("--label-column", default="label", metavar="NAME", help=label)
    least = "least length of a candidate (0: any)"
    add("--min-chars", type=int, default=0, metavar="N", help=least)
    kept = "keep candidates that share 13 words in a row with the rows that are scored"
    add("--keep-overlap", action="store_true", help=kept)

    add = parser.add_argument_group("where").add_argument
    add("--store", type=named_path, default=Path("artifacts"), help="(artifacts)")
    parser.set_defaults(run=run)
