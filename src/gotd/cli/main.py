# PYTHON_ARGCOMPLETE_OK
"""The command line ``gotd``: one subcommand for each task.

Each command imports what it needs when it runs, so ``gotd --help`` stays fast, and an
interrupt while modules are imported is an interrupt like any other.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from gotd._version import __version__
from gotd.storage.printing import printable, printable_lines

PRINTERS = ("diff", "plan", "doctor")
"""The commands that write no file."""
WITHOUT_MODELS = ("select", "diff", "report", "doctor")
"""The commands that do not always load a model."""


ENVIRONMENT = {
    # By default a thread that waits for another one keeps its core busy, so a machine with other
    # work takes many times as long.
    "OMP_WAIT_POLICY": "PASSIVE",
    # oneDNN keeps the code of a product for each new shape, some megabytes for the shapes of a
    # batch. By default it keeps 1,024, which is more than half a gigabyte for long texts.
    "ONEDNN_PRIMITIVE_CACHE_CAPACITY": "256",
}
"""Variables that torch reads when it is imported, unless they are set."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status.

    An error that the user can fix is printed as one line, with status 2.
    """
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    try:
        return _main(arguments)
    except KeyboardInterrupt:  # also before a command is known
        print("gotd: interrupted; run it again to resume", file=sys.stderr)
        return 130


def _main(arguments: Sequence[str] | None) -> int:
    """Run one command; see `main`."""
    try:
        parser = _parser()
    except ValueError as error:  # a broken file or entry point of a selector
        print(printable(f"gotd: {error}"), file=sys.stderr)
        return 2
    if "_ARGCOMPLETE" in os.environ:  # a shell asks what can follow
        import argcomplete

        argcomplete.autocomplete(parser)
    options = parser.parse_args(arguments)
    with _logged():
        return _run_command(options)


@contextmanager
def _logged() -> Iterator[None]:
    """Show what is logged, unless the caller does; its handlers are there again at the end.

    A handler keeps the stream of its command, which may be closed when the next one runs.
    """
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    if not handlers:
        handler = logging.StreamHandler()
        handler.setFormatter(_Formatter("%(message)s"))
        handler.addFilter(_is_shown)
        logging.basicConfig(level=logging.INFO, handlers=[handler])
    try:
        yield
    finally:  # Hydra replaces them, too
        root.handlers[:] = handlers
        root.setLevel(level)


def _run_command(options: argparse.Namespace) -> int:
    """Run the command that was typed; an error that the user can fix is one line."""
    from gotd.runs.process import closed_output_ignored, stopped_as_interrupted, warnings_logged
    from gotd.storage.artifacts import ArtifactError
    from gotd.storage.environment import check_docstrings
    from gotd.storage.errors import WorkerKilled

    try:
        if options.command not in WITHOUT_MODELS:
            check_docstrings()
        with warnings_logged(), stopped_as_interrupted():
            if options.command in PRINTERS:
                return _printed(options)
            with closed_output_ignored():
                return int(options.run(options) or 0)
    except (ValueError, OSError, ArtifactError, WorkerKilled) as error:
        print(printable(f"gotd {options.command}: {error}"), file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"gotd {options.command}: interrupted; run it again to resume", file=sys.stderr)
        return 130


def _printed(options: argparse.Namespace) -> int:
    """Run a command whose output is all it makes, and raise if the output was lost."""
    lost = "nobody reads the output, which is all that this command makes; do not close it"
    if sys.stdout is None:
        raise OSError(lost)
    try:
        status = int(options.run(options) or 0)
        sys.stdout.flush()
        return status
    except BrokenPipeError as error:
        raise OSError(lost) from error


def _is_shown(record: logging.LogRecord) -> bool:
    """Whether a message is gotd's own, or a warning of a library."""
    return record.name.partition(".")[0] == "gotd" or record.levelno >= logging.WARNING


class _Formatter(logging.Formatter):
    """Shows a message of gotd as one line, and what libraries log, or a traceback, as lines."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - name of logging
        message = super().formatMessage(record)
        return printable(message) if record.name.partition(".")[0] == "gotd" else message

    def format(self, record: logging.LogRecord) -> str:
        return printable_lines(super().format(record))


def _parser() -> argparse.ArgumentParser:
    from gotd.cli.compare_arguments import add_compare
    from gotd.cli.parser import Parser
    from gotd.cli.select_arguments import add_diff, add_select, named_path

    parser = Parser(
        prog="gotd",
        description="Choose the right unlabelled data to warm up a language model.",
    )
    parser.add_argument("--version", action="version", version=f"gotd {__version__}")
    commands = parser.add_subparsers(dest="command", required=True)

    def add(name: str, run: Callable[[Any], int | None], text: str, nargs: str = "") -> Any:
        command = commands.add_parser(name, help=text, description=text)
        command.set_defaults(run=run)
        if nargs:
            example = "Hydra overrides, such as experiment=glue scale=folder seed=1,2"
            command.add_argument("overrides", nargs=nargs, help=example)
        return command

    add_select(commands, _select)
    add_diff(commands, _diff)
    add_compare(commands, _compare)
    sweep = add("run", _run, "run an experiment, or any sweep of it", argparse.REMAINDER)
    sweep.set_defaults(flags_are_overrides=True)  # which Hydra has; they may come first
    add("plan", _plan, "what a sweep would run, what is done, hours, memory, disk", "*")
    fetch = add(
        "fetch", _fetch, "download an experiment's rows from the Hub, to run it offline", "*"
    )
    fetch.add_argument("--models", action="store_true", help="and its models, into the same folder")

    report = add(
        "report", _report, "tables (Markdown, LaTeX), figures and one HTML page from records"
    )
    report.add_argument(
        "records", nargs="*", type=named_path, help="JSONL files; default: all committed"
    )
    report.add_argument(
        "--out", type=named_path, default=Path("results"), help="folder to write into"
    )

    export = add(
        "export", _export, "a finished cell's model as a Hugging Face folder with a card", "+"
    )
    export.add_argument("--out", type=named_path, required=True, help="folder to write")
    export.add_argument("--push", metavar="NAME", help="also push it to this name on the Hub")

    add("doctor", _doctor, "is this machine ready: GPU, hub, disk, versions")
    return parser


def _select(options: argparse.Namespace) -> int:
    from gotd.cli.select import run
    from gotd.storage.hub_models import use_hub_folder

    use_hub_folder(options.store / "hub")
    return run(options)


def _compare(options: argparse.Namespace) -> int:
    from gotd.cli.compare import run

    return run(options)


def _diff(options: argparse.Namespace) -> None:
    from gotd.selection_report.diff import compare

    print(compare(options.one, options.other, options.first))


def _run(options: argparse.Namespace) -> int:
    from gotd.runs.flags import split_experiment
    from gotd.runs.sweep import run

    return run(*split_experiment(options.overrides))


def _plan(options: argparse.Namespace) -> None:
    from gotd.cli.plan import print_missing, print_plan
    from gotd.planning.plan import concurrency, lay_out

    cells, _, skipped = lay_out(options.overrides, print_missing)
    print_plan(cells, skipped, concurrency(options.overrides))


def _fetch(options: argparse.Namespace) -> None:
    from gotd.cli.fetch import fetch

    folder = fetch(options.overrides, options.models)
    print(printable(f"fetched into {folder}; copy that folder to a machine without a network"))


def _report(options: argparse.Namespace) -> None:
    from gotd.config.discovery import conf_folder
    from gotd.pipeline.output import cannot_write
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
    paper_or_none = paper if paper.is_dir() else None
    try:
        written = write_report(
            records, options.out, paper=paper_or_none, command=f"gotd report {names}"
        )
    except OSError as error:
        raise cannot_write(error, options.out) from error
    print(printable(f"{len(records)} records, {len(written)} files in {options.out}"))


def _export(options: argparse.Namespace) -> None:
    from gotd.runs.export import export

    written = export(options.overrides, options.out, options.push)
    pushed = f"; pushed to {options.push}" if options.push else ""
    print(printable(f"{written}: see its README.md{pushed}"))


def _doctor(_: argparse.Namespace) -> int:
    from gotd.cli.doctor import examine

    return examine()


if __name__ == "__main__":
    sys.exit(main())
