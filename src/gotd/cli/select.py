"""``gotd select``: arguments in, a folder out."""

from __future__ import annotations

import argparse
import logging
import re
import shlex
import sys
from pathlib import Path
from typing import Any

from gotd.data.columns import Columns
from gotd.data.hub.stream import HUB_RECORD
from gotd.data.inputs import File, named_parts
from gotd.embedding.encoders import KNOWN, check_device, named_encoder
from gotd.engine.build import build_engine, share_cores
from gotd.engine.local import Engine
from gotd.engine.progress import watch_terminal
from gotd.pipeline.output import Output, write_selection
from gotd.pipeline.select import Prepared, Request
from gotd.selectors.registry import build_selector
from gotd.storage import progress
from gotd.storage.artifacts import Store


def run(options: argparse.Namespace) -> int:
    """Run the command.

    Raises:
        ValueError: If something that was asked for cannot be had; one line.
        OSError: If a file cannot be read or written; one line.
    """
    logging.getLogger("gotd.storage.artifacts").setLevel(logging.WARNING)
    budgets = parse_budgets(options.budget)
    _check_licence(options.license)
    request = _request(options)
    output = Output(options.out, options.overwrite)
    parts = (*request.target, *request.candidates)
    inputs = [part.path for part in parts if isinstance(part, File)]
    inputs += [value for value in vars(request.method).values() if isinstance(value, Path)]
    encoder = Path(options.encoder)
    if options.encoder not in KNOWN and encoder.is_dir():
        inputs += encoder.iterdir()
    with output.claimed(inputs, options.store), progress.watch(watch_terminal()):
        store, engine = Store(options.store), engine_of(options)
        prepared = Prepared(request, max(budgets), store, engine)
        if options.explain:
            prepared.embed_target()  # here, since a step that is shown may not hold another
        with progress.step("selecting and writing"):
            manifest = write_selection(
                prepared,
                budgets,
                output,
                command=shlex.join(["gotd", *sys.argv[1:]]),
                explain=options.explain,
                licence=options.license,
            )
    log = logging.getLogger(__name__)
    for side, count in manifest["unreadable_rows"].items():
        if count:
            log.warning("%s rows of the %s hold no word that the encoder knows", f"{count:,}", side)
    log.info(
        "%s of %s candidates in %s: %s, report.md, manifest.json, README.md",
        " and ".join(f"{budget:,}" for budget in manifest["budgets"]),
        f"{manifest['rows']['candidates']:,}",
        options.out,
        ", ".join(manifest["files"]),
    )
    return 0


def parse_budgets(given: str) -> list[int]:
    """Read ``10000,50000``.

    Raises:
        ValueError: If it is not whole numbers of at least 1.
    """
    try:
        budgets = [int(part.replace("_", "")) for part in given.split(",")]
    except ValueError as error:
        raise ValueError(
            f"--budget must be a whole number, or several with commas, not {given!r}"
        ) from error
    if min(budgets) < 1:
        raise ValueError(f"--budget must be at least 1, not {min(budgets)}")
    return budgets


def _check_licence(given: str | None) -> None:
    if given is not None and not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9.+-]*", given):
        raise ValueError(f"--license takes an identifier such as cc-by-4.0, not {given!r}")


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
    text = tuple(options.text_column.split(","))
    columns = Columns(text, options.id_column, options.domain_column)
    # Ids and domains are named for the candidates; a target has its own or is numbered.
    target_text = options.target_text_column
    target_columns = Columns(tuple(target_text.split(",")) if target_text else text)
    record = options.store / HUB_RECORD
    return Request(
        target=named_parts(options.target, target_columns, record),
        candidates=named_parts(options.candidates, columns, record),
        method=build_selector(options.method, settings),
        method_name=options.method,
        encoder=named_encoder(options.encoder, device),
        target_columns=target_columns,
        columns=columns,
        unit=options.unit,
        length_chars=options.length_chars,
        min_chars=options.min_chars,
        seed=options.seed,
    )
