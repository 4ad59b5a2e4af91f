"""The arguments of ``gotd select`` and ``gotd diff``. Imports nothing heavy."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from gotd.data.row_shapes import FORMATS, ROLES
from gotd.selectors.registry import entries

_EXAMPLES = """
examples:
  gotd select --target mine.jsonl --candidates 'pool/*.parquet' --budget 50000 --out chosen/
  gotd select --target train.csv --candidates pool/ --budget 10000,50000 --out chosen/ \\
      --encoder minilm --explain
  gotd select --target mine.jsonl --candidates pool.jsonl --budget 50000 --out chosen.jsonl
  gotd select --target mine.txt --candidates hub:allenai/c4:en --budget 50000 --out chosen/

Files are Parquet, Arrow, JSON lines, JSON, CSV, TSV or plain text (one passage a line); all
but the first two may be compressed (.gz, .zst, .bz2, .xz). Their rows are texts, or chats,
instructions, prompts, questions or preference pairs, which is found and printed.
What is read, embedded and scored is kept in --store: run again to go on after an
interruption, or with another budget, which takes seconds.
"""


def add_select(commands: Any, run: Any) -> None:
    """Add ``gotd select`` to the commands."""
    parser = commands.add_parser(
        "select",
        help="choose candidates for your own target: files in, a file or folder out",
        description="Choose the candidates that serve a target best.",
        epilog="methods:\n"
        + "\n".join(f"  {one.name:<24}{one.help}" for one in entries() if one.offered)
        + "\n"
        + _EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument_group("needed").add_argument
    add("--target", nargs="+", required=True, metavar="FILE", help="texts to serve")
    names = "files, folders, patterns, URLs (s3://…) or hub:namespace/name[:config][:split]"
    add("--candidates", nargs="+", required=True, metavar="FILE", help=names)
    amount = parser.add_mutually_exclusive_group().add_argument
    amount("--budget", metavar="N[,N]|P%", help="rows to choose, or a share of the pool")
    amount("--tokens", metavar="N[,N]", help="tokens to choose, such as 2M or 500k")
    out = "file of rows (.jsonl, .jsonl.gz, .parquet, .csv), .hf data set, or a folder"
    add("--out", type=named_path, metavar="PATH", help=out)
    weights = "write how often to draw each candidate, beside a selection or without one"
    add("--weights", type=named_path, metavar="FILE", help=weights)

    add = parser.add_argument_group("how").add_argument
    add("--method", default="got_d", metavar="NAME", help="see below (got_d)")
    names = "tfidf_svd (words, needs no model), minilm, or a model's name or folder (tfidf_svd)"
    add("--encoder", default="tfidf_svd", metavar="NAME", help=names)
    names = "counts --tokens: minilm, or a model's folder or Hub name (minilm)"
    add("--tokenizer", default="minilm", metavar="NAME", help=names)
    names = "name or folder of the model to train, for methods that read it (see below)"
    add("--model", metavar="NAME", help=names)
    add("--epsilon", type=float, help="regularisation, in mean costs (0.05)")
    add("--prove", action="store_true", help="got_d: solve until the choice is proven exact")
    setting = "a setting of the method"
    add("--set", action="append", default=[], metavar="KEY=VALUE", help=setting)
    add("--seed", type=int, default=0, metavar="N", help="of what is random (0)")
    add("--explain", action="store_true", help="add which target each row serves")

    mixed = "general rows to mix in, and their share of the output, such as general.jsonl:20%%"
    add("--replay", metavar="FILE:SHARE", help=mixed)

    add_rows(parser)
    _add_filters(parser)

    add = parser.add_argument_group("where").add_argument
    add("--engine", choices=("local", "ray"), default="local", help="(local)")
    add("--workers", type=int, metavar="N", help="shards at once (1; ray: 2)")
    add("--ray-address", metavar="HOST:PORT", help="of a cluster (RAY_ADDRESS)")
    add("--store", type=named_path, default=Path("artifacts"), help="(artifacts)")
    device = "auto, cpu or cuda; ray: cuda gives each embedding worker a GPU (auto)"
    add("--device", default="auto", help=device)
    add("--license", metavar="ID", help="of the texts, for the data card (unknown)")
    add("--push", metavar="hub:OWNER/NAME", help="upload what was written, as a private data set")
    add("--plan", action="store_true", help="print what it would cost; nothing is written")
    add("--overwrite", action="store_true", help="replace what is in --out")
    parser.set_defaults(run=run)


def named_path(given: str) -> Path:
    """Return a path; an empty name, which would be the working folder, is refused."""
    if not given.strip():
        raise argparse.ArgumentTypeError("must name a file or folder; an empty name is none")
    return Path(given)


def add_rows(parser: argparse.ArgumentParser) -> Any:
    """Add the options that say how rows are read; return what adds more of them."""
    add = parser.add_argument_group("rows").add_argument
    text = "column of the text; several are joined (text)"
    add("--text-column", default="text", metavar="NAME[,NAME]", help=text)
    add("--target-text-column", metavar="NAME[,NAME]", help="the target's (the same)")
    shapes = "shape of the rows (found in the first ones): " + ", ".join(FORMATS)
    add("--format", metavar="NAME", help=shapes)
    template = "text with names of columns, such as '{question} {answer}', instead of a shape"
    add("--template", metavar="TEXT", help=template)
    for name, metavar in (("format", "NAME"), ("template", "TEXT")):
        add(f"--target-{name}", metavar=metavar, help="the target's (the same)")
    turns = "whose turns of a chat or an instruction are compared, of both sides (all)"
    add("--role", choices=ROLES, default="all", help=turns)
    add("--id-column", metavar="NAME", help="of candidates (id, else numbered)")
    add("--domain-column", metavar="NAME", help="of candidates (domain, else file)")
    unit = "whole: choose rows as they are; fixed: pieces of --length-chars (whole)"
    add("--unit", choices=("whole", "fixed"), default="whole", help=unit)
    length = "length of a fixed piece, and what the encoder reads of a row (1000)"
    add("--length-chars", type=int, default=1000, metavar="N", help=length)
    return add


def _add_filters(parser: argparse.ArgumentParser) -> None:
    """Add the options that say which candidates compete."""
    add = parser.add_argument_group("which rows").add_argument
    least = "least length of a candidate; a shorter piece joins the next one (0: any)"
    add("--min-chars", type=int, default=0, metavar="N", help=least)
    condition = "condition on columns, such as \"lang == 'en' and stars >= 3\""
    add("--where", metavar="CONDITION", help=condition)
    same = "leave out candidates with an earlier one's text, or nearly so (exact)"
    add("--dedup", choices=("exact", "near", "off"), default="exact", help=same)
    shared = "test sets: leave out candidates that share 13 words in a row"
    add("--exclude", nargs="+", default=[], metavar="FILE", help=shared)
    most = "most rows of a domain that are chosen (any)"
    add("--max-per-domain", type=int, metavar="N", help=most)
    fewest = "fewest rows of a domain, as far as it has so many (any)"
    add("--min-per-domain", type=int, metavar="N", help=fewest)
    shares = "share of the choice by domain, such as law:30%% news:50%%; the others have the rest"
    add("--mix", nargs="+", default=[], metavar="DOMAIN:SHARE", help=shares)
    listed = "write what was left out, and why (.jsonl, .csv, .parquet)"
    add("--removed", type=named_path, metavar="FILE", help=listed)


def add_diff(commands: Any, run: Any) -> None:
    """Add ``gotd diff`` to the commands."""
    parser = commands.add_parser(
        "diff",
        help="two selections, side by side",
        description="Compare two selections: folders of gotd select or of an experiment "
        "(artifacts/selection/…), or files of rows with ids.",
    )
    parser.add_argument("one", type=named_path)
    parser.add_argument("other", type=named_path)
    parser.add_argument("--first", type=int, default=5, metavar="N", help="rows to show (5)")
    parser.set_defaults(run=run)
