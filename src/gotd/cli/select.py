"""``gotd select``: arguments in, a file or a folder out."""

from __future__ import annotations

import argparse
import logging
import re
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from gotd.data.base import Part
from gotd.data.columns import Columns, both_columns
from gotd.data.hub.stream import HUB_RECORD
from gotd.data.inputs import File, check_role, named_parts
from gotd.data.remote import is_remote
from gotd.embedding.embedders import check_device
from gotd.embedding.encoders import KNOWN, named_encoder
from gotd.engine.build import build_engine, share_cores
from gotd.engine.local import Engine
from gotd.engine.progress import watch_terminal
from gotd.pipeline.amounts import Amount, parse_share, parse_tokens, prepare
from gotd.pipeline.formats import row_suffix, written_suffix
from gotd.pipeline.output import Output
from gotd.pipeline.push import check_push, parse_push, push
from gotd.pipeline.replay import parse_replay
from gotd.pipeline.request import Request
from gotd.pipeline.steps.left_out import LeaveOut
from gotd.pipeline.written import file_suffix, rows_to_write, write_selection, write_weights
from gotd.selection_report.flags import SHORT
from gotd.selectors.bounds import Bounds, parse_mix
from gotd.selectors.registry import build_selector
from gotd.storage import progress
from gotd.storage.artifacts import Step, Store
from gotd.storage.files import followed, know_checksums, resolved
from gotd.storage.printing import command_line

SHOWN_BYTES = 2**30
"""Files of so many bytes take seconds to read."""


def run(options: argparse.Namespace) -> int:
    """Run the command.

    Raises:
        ValueError: If something that was asked for cannot be had; one line.
        OSError: If a file cannot be read or written; one line.
    """
    logging.getLogger("gotd.storage.artifacts").setLevel(logging.WARNING)
    amounts = _amounts(options)
    alone = _check_outputs(options)
    _check_licence(options.license)
    request = _request(options)
    if options.plan:
        _print_plan(options, request, amounts)
        return 0
    pushed = options.push and parse_push(options.push)
    if pushed:
        check_push(pushed)
    output = _output(options, alone)
    _check_not_among_inputs(options)
    parts = [*request.target, *request.candidates, *request.leave_out.exclude]
    parts += [] if request.replay is None else request.replay.parts
    inputs = [part.path for part in parts if isinstance(part, File)]
    inputs += [value for value in vars(request.method).values() if isinstance(value, Path)]
    for name in {options.encoder, options.model or "", options.tokenizer} - {*KNOWN, ""}:
        if Path(name).is_dir():  # else it is the name of a model on the Hub
            inputs += Path(name).iterdir()
    for option in ("--removed",) if alone else ("--removed", "--weights"):
        _check_beside(option, options, output, inputs)
    with output.claimed(inputs, options.store), progress.watch(watch_terminal()):
        engine, announce = engine_of(options), partial(_announce, request=request)
        _read_checksums(parts, engine)
        store = Store(options.store, map_files=engine.map)
        prepared, budgets = prepare(request, amounts, store, engine, announce)
        if options.explain:
            prepared.embed_target()  # here, since a step that is shown may not hold another
        command = command_line(["gotd", *sys.argv[1:]])
        rows = rows_to_write(prepared, budgets, options.weights is not None)
        with progress.step("selecting and writing", rows):
            if alone:
                manifest = write_weights(prepared, output, command=command)
            else:
                manifest = write_selection(
                    prepared,
                    budgets,
                    output,
                    command=command,
                    explain=options.explain,
                    licence=options.license,
                    removed=options.removed,
                    weights=options.weights,
                )
        address = None
        if pushed:
            with progress.step(f"pushing to {pushed}"):
                address = push(pushed, output, manifest, options.license)
    _log_result(manifest, output, options)
    if address is not None:
        logging.getLogger(__name__).info("pushed to %s", address)
    return 0


def _output(options: argparse.Namespace, alone: bool) -> Output:
    place, option = (options.weights, "--weights") if alone else (options.out, "--out")
    return Output(place, options.overwrite, option)


def _print_plan(options: argparse.Namespace, request: Request, amounts: list[Amount]) -> None:
    from gotd.cli.select_plan import print_selection_plan

    weighted, out = options.weights is not None, options.out or options.weights
    engine = engine_of(options)
    print_selection_plan(request, amounts, row_suffix(out), engine, options.store, weighted)


def _read_checksums(parts: Sequence[Part], engine: Engine) -> None:
    """Compute the checksums of files, which are kept; shown where it takes a while."""
    files = [part.path for part in parts if isinstance(part, File)]
    if sum(path.stat().st_size for path in files) < SHOWN_BYTES:
        return
    with progress.step("checksums of files", len(files)):
        for _ in know_checksums(files, engine.map):
            progress.tick()


def _log_result(manifest: dict[str, Any], output: Output, options: argparse.Namespace) -> None:
    log = logging.getLogger(__name__)
    if left_out := manifest["left_out_rows"]:
        counts = ", ".join(f"{count:,} {reason}" for reason, count in left_out.items())
        log.info("left out before selection: %s", counts)
    for side, count in manifest["unreadable_rows"].items():
        if count:
            log.warning("%s rows of the %s hold no word that the encoder knows", f"{count:,}", side)
    if weights := manifest.get("weights"):
        log.info(
            "weights of %s rows: %s; as varied as a draw from %s",
            f"{weights['rows']:,}",
            options.weights,
            f"{weights['effective_rows']:,.0f}",
        )
    if "budgets" not in manifest:
        log.info("report.md, manifest.json in %s", output.folder)
        return
    largest = manifest["summaries"][str(max(manifest["budgets"]))]
    if short := largest["flags"].get(SHORT):
        log.warning("%s Give --min-chars to leave short rows out, or to join short pieces", short)
    for file in manifest["files"].values():
        if replayed := file.get("replay_rows"):
            log.info("%s rows of replay beside %s", f"{replayed:,}", f"{file['rows']:,}")
    log.info(
        "%s of %s candidates: %s; report.html, report.md, manifest.json, README.md in %s",
        " and ".join(f"{budget:,}" for budget in manifest["budgets"]),
        f"{manifest['competing_rows']:,}",
        ", ".join(manifest["files"]),
        output.folder if output.suffix else options.out,
    )


def _amounts(options: argparse.Namespace) -> list[Amount]:
    if options.tokens is not None:
        return [parse_tokens(part, options.tokenizer) for part in options.tokens.split(",")]
    if options.budget is None:
        return [Amount(1)]  # weights alone: nothing is chosen
    if "%" in options.budget:
        parts = options.budget.split(",")
        if not all("%" in part for part in parts):
            raise ValueError(
                f"--budget {options.budget[:40]!r} mixes rows and shares; give one kind"
            )
        return [parse_share(part) for part in parts]
    return [Amount(rows) for rows in parse_budgets(options.budget)]


def named_columns(options: argparse.Namespace) -> tuple[Columns, Columns]:
    """Return the columns of candidates and target, as the options of the rows name them."""
    return both_columns(
        options.text_column,
        options.target_text_column,
        id_column=options.id_column,
        domain_column=options.domain_column,
        format=options.format,
        target_format=options.target_format,
        template=options.template,
        target_template=options.target_template,
        role=options.role,
    )


def parse_budgets(given: str) -> list[int]:
    """Read ``10000,50000``.

    Raises:
        ValueError: If it is not whole numbers of at least 1.
    """
    try:
        budgets = [int(part.replace("_", "")) for part in given.split(",")]
    except ValueError as error:
        raise ValueError(
            f"--budget must be a whole number, or several with commas, not {given[:40]!r}"
        ) from error
    if min(budgets) < 1:
        raise ValueError(f"--budget must be at least 1, not {min(budgets)}")
    return budgets


def _check_licence(given: str | None) -> None:
    if given is not None and not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9.+-]*", given):
        raise ValueError(f"--license takes an identifier such as cc-by-4.0, not {given!r}")


def _check_outputs(options: argparse.Namespace) -> bool:
    """Check what is to be written; return whether it is weights alone."""
    chooses = options.budget is not None or options.tokens is not None
    if options.weights is None and not chooses:
        options.usage_error("give --budget or --tokens, or --weights alone")
    if options.out is None and chooses:
        options.usage_error("give --out for the selection, or --weights alone")
    if options.out is not None and not chooses:
        options.usage_error("give --budget or --tokens for --out, or no --out")
    if options.removed is not None and not chooses:
        raise ValueError("--removed belongs to a selection; give --budget and --out, too")
    for name in ("replay", "push", "mix", "max_per_domain", "min_per_domain"):
        if getattr(options, name) not in (None, []) and not chooses:
            option = f"--{name.replace('_', '-')}"
            raise ValueError(f"{option} belongs to a selection; give --budget and --out, too")
    if options.weights is not None:
        file_suffix(options.weights, "--weights")
    beside = [one for one in (options.weights, options.removed) if one is not None]
    if len(set(map(resolved, beside))) < len(beside):
        raise ValueError("--weights and --removed name one file; choose another name")
    return not chooses


def _check_not_among_inputs(options: argparse.Namespace) -> None:
    """Check that nothing is written into a folder of inputs, where it would be read next time."""
    names = [*options.target, *options.candidates, *options.exclude]
    folders = [resolved(Path(name)) for name in names if Path(name).is_dir()]
    for option in ("out", "weights", "removed"):
        path = getattr(options, option)
        for folder in folders:
            if path is not None and folder in resolved(path).parents:
                raise ValueError(
                    f"--{option} {path} is inside the input {folder}, so that the next run would "
                    "read it; choose a place outside"
                )


def _check_beside(
    option: str, options: argparse.Namespace, output: Output, inputs: list[Path]
) -> None:
    """Check that a file beside the selection is new, of an earlier run, or may be replaced."""
    path = getattr(options, option.removeprefix("--"))
    if path is None:
        return
    place = followed(path)
    if written_suffix(place.name) != file_suffix(path, option):
        raise ValueError(
            f"{option} {path} is a link to {place}, whose name ends in another way; give that "
            "name, or remove the link"
        )
    if not place.parent.is_dir():
        raise ValueError(f"{option} {path}: there is no folder {place.parent}; create it first")
    may_replace = options.overwrite and path.is_file()
    if path.exists() and not (may_replace or output.wrote(path, option.removeprefix("--"))):
        raise ValueError(f"{option} {path} exists; choose another name or give --overwrite")
    if output.holds(path):
        raise ValueError(f"{option} {path} is in the place of {output.option}; choose another name")
    real = resolved(path)
    if real.is_relative_to(resolved(options.store)) or real in map(resolved, inputs):
        raise ValueError(f"{option} {path} is an input, or in the store; choose another name")


def engine_of(options: argparse.Namespace) -> Engine:
    """Build the engine that the options name.

    Raises:
        ValueError: If the number of workers or the address is wrong, or Ray is not installed.
    """
    default = 1 if options.engine == "local" else 2
    workers = default if options.workers is None else options.workers
    gpus = 1.0 if options.device.startswith("cuda") else 0.0
    engine = build_engine(options.engine, workers, options.ray_address, gpus)
    if options.engine == "local":
        share_cores(workers)
    return engine


def _request(options: argparse.Namespace) -> Request:
    settings: dict[str, Any] = {}
    for pair in options.set:
        key, equals, value = pair.partition("=")
        if not equals:
            raise ValueError(f"--set takes KEY=VALUE, not {pair!r}")
        settings[key] = value
    if options.epsilon is not None:
        settings["epsilon"] = options.epsilon
    if options.prove:
        settings["prove"] = True
    check_device(options.device)
    # A worker of a cluster has the GPU it was given; the machine that asks may have none.
    device = "auto" if options.engine == "ray" else options.device
    columns, target_columns = named_columns(options)
    record = options.store / HUB_RECORD
    names = [*options.target, *options.candidates, *options.exclude]
    if options.plan and (remote := [name for name in names if is_remote(name)]):
        raise ValueError(f"--plan: {remote[0]} would be copied first; plan with files")
    target = named_parts(options.target, target_columns, record)
    candidates = named_parts(options.candidates, columns, record)
    check_role(options.role, [*target, *candidates])
    return Request(
        target=target,
        candidates=candidates,
        method=build_selector(options.method, settings, device),
        method_name=options.method,
        encoder=named_encoder(options.encoder, device),
        target_columns=target_columns,
        columns=columns,
        unit=options.unit,
        length_chars=options.length_chars,
        min_chars=options.min_chars,
        seed=options.seed,
        bounds=Bounds(options.max_per_domain, options.min_per_domain, parse_mix(options.mix)),
        leave_out=LeaveOut(
            options.where, named_parts(options.exclude, target_columns, record), options.dedup
        ),
        replay=options.replay and parse_replay(options.replay, columns, record),
        model=options.model,
    )


def _announce(steps: Sequence[Step], request: Request) -> None:
    """Log what running the model will take, before it runs."""
    from gotd.planning.estimates import estimate, this_machine

    machine = this_machine()
    seconds = sum(estimate(step, {}, machine).seconds for step in steps)
    rows = max(step.inputs["pool"].stated.rows for step in steps if "pool" in step.inputs)
    took = f"{seconds / 3600:.1f} hours" if seconds > 5400 else f"{seconds / 60:.1f} minutes"
    logging.getLogger(__name__).info(
        "%s runs the model %s over %s candidates: about %s on this machine, by its arithmetic; "
        "what is done is kept in the store",
        request.method_name,
        request.model,
        f"{rows:,.0f}",
        took,
    )
