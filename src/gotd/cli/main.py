"""The command line: ``gotd select | diff | plan | fetch | report | export | doctor``.

Everything heavy is imported by the command that needs it, so ``--help`` answers at once.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from gotd.cli.select_arguments import add_diff, add_select


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; errors that a user can mend are one line, status 2."""
    try:
        parser = _parser()
    except ValueError as error:  # a broken file or entry point of a selector
        print(f"gotd: {error}", file=sys.stderr)
        return 2
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    from gotd.storage.artifacts import ArtifactError

    try:
        return int(options.run(options))
    except (ValueError, OSError, ArtifactError) as error:
        print(f"gotd {options.command}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"gotd {options.command}: interrupted; run it again to go on", file=sys.stderr)
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="gotd",
        description="Choose the right unlabelled data to warm up a language model.",
    )
    commands = parser.add_subparsers(dest="command", required=True)

    add_select(commands, _select)
    add_diff(commands, _diff)

    plan = commands.add_parser(
        "plan", help="what a sweep would run, what is done, hours, memory, disk"
    )
    plan.add_argument("overrides", nargs="*", help="Hydra overrides, such as experiment=glue")
    plan.set_defaults(run=_plan)

    fetch = commands.add_parser(
        "fetch", help="get an experiment's rows from the Hub, to run it later without a network"
    )
    fetch.add_argument("overrides", nargs="*", help="such as experiment=glue scale=paper")
    fetch.set_defaults(run=_fetch)

    report = commands.add_parser(
        "report", help="tables (Markdown, LaTeX), figures and one HTML page from records"
    )
    report.add_argument("records", nargs="*", type=Path, help="JSONL files; default: all committed")
    report.add_argument("--out", type=Path, default=Path("results"), help="folder to write into")
    report.set_defaults(run=_report)

    export = commands.add_parser(
        "export", help="a finished cell's model as a Hugging Face folder with a model card"
    )
    export.add_argument("overrides", nargs="+", help="one cell, such as experiment=toxicity seed=1")
    export.add_argument("--out", type=Path, required=True, help="folder to write")
    export.add_argument("--push", metavar="NAME", help="also push it to this name on the Hub")
    export.set_defaults(run=_export)

    doctor = commands.add_parser("doctor", help="is this machine ready: GPU, hub, disk, versions")
    doctor.set_defaults(run=_doctor)
    return parser


def _select(options: argparse.Namespace) -> int:
    from gotd.cli.select import run

    return run(options)


def _diff(options: argparse.Namespace) -> int:
    from gotd.selection_report.diff import compare

    print(compare(options.one, options.other, options.first))
    return 0


def _plan(options: argparse.Namespace) -> int:
    from gotd.cli.plan import print_plan
    from gotd.planning.plan import lay_out

    print_plan(*lay_out(options.overrides))
    return 0


def _fetch(options: argparse.Namespace) -> int:
    from gotd.config.build import build
    from gotd.runs.expand import expand

    source = build(expand(options.overrides)[0][0].source)
    if source.name != "hub":
        raise ValueError(
            f"the source {source.name} has nothing to fetch; scale=paper reads the Hub"
        )
    source.fetch()
    print(f"fetched into {source.path}; copy that folder to a machine without a network")
    return 0


def _report(options: argparse.Namespace) -> int:
    from gotd.config.discovery import conf_folder
    from gotd.reporting.records import read_jsonl
    from gotd.reporting.report import write_report

    files = options.records or sorted((options.out / "records").glob("*.jsonl"))
    if not files:
        raise FileNotFoundError(
            f"no records in {options.out / 'records'}; name JSONL files, such as the "
            "artifacts/reports/…/records.jsonl that an experiment wrote"
        )
    paper = options.out / "paper"
    if not paper.is_dir():  # another folder than `results`
        paper = conf_folder().parent / "results" / "paper"
    records = [record for file in files for record in read_jsonl(file)]
    names = " ".join(file.name for file in files)
    written = write_report(
        records,
        options.out,
        paper=paper if paper.is_dir() else None,
        command=f"gotd report {names}",
    )
    print(f"{len(records)} records, {len(written)} files in {options.out}")
    return 0


def _export(options: argparse.Namespace) -> int:
    from gotd.runs.export import export

    written = export(options.overrides, options.out, options.push)
    print(f"{written}: see its README.md" + (f"; pushed to {options.push}" if options.push else ""))
    return 0


def _doctor(_: argparse.Namespace) -> int:
    from gotd.cli.doctor import examine

    return examine()


if __name__ == "__main__":
    sys.exit(main())
