"""Measure the memory of an experiment on a pool of millions of short chunks.

Writes a folder of generated rows, runs one cell of the domain experiment on it, and makes the
same selection with `gotd select`. Reports the peak of resident memory without mapped files
(RssAnon of the process and its children) and whether both selections have the same ids.

    python experiments/benchmarks/large_pool.py            # 2 million chunks
    python experiments/benchmarks/large_pool.py --quick    # 20,000 chunks, a minute
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from gotd.data.folder import Folder
from gotd.storage.environment import code, hardware
from gotd.storage.seeds import derive_seeds

RESULTS = Path(__file__).parents[2] / "results" / "benchmarks"
FILES, DOMAINS = 8, ("cells", "stars", "trade", "films")
BUDGET, SEED, LENGTH_CHARS = 1_000, 11, 64
LABELLED = 300
SHARE_OF_POOL = 0.85  # of the passages; the others are held out for pre-training


def texts(rows: int, random: np.random.Generator, topic: int) -> list[str]:
    """Return short texts, half of whose words are of a topic."""
    own = random.integers(0, 500, size=(rows, 4)) + 1_000 * topic
    common = random.integers(0, 3_000, size=(rows, 4)) + 100_000
    words = np.char.add("w", np.concatenate([own, common], axis=1).astype(str))
    return [" ".join(line) for line in words]


def write_folder(folder: Path, chunks: int) -> None:
    """Write candidates in several files and one labelled task, as `scale=folder` reads them."""
    random = np.random.default_rng(SEED)
    (folder / "candidates").mkdir(parents=True)
    each = round(chunks / SHARE_OF_POOL / FILES)
    for number in range(FILES):
        domain = number % len(DOMAINS)
        table = pa.table(
            {
                "id": [f"{number}/{row}" for row in range(each)],
                "text": texts(each, random, domain),
                "domain": [DOMAINS[domain]] * each,
            }
        )
        pq.write_table(table, folder / "candidates" / f"part-{number}.parquet")
    task = folder / "domain" / "imdb"
    task.mkdir(parents=True)
    for split in ("train", "validation", "test"):
        rows = {"text": texts(LABELLED, random, 0), "label": np.arange(LABELLED) % 2}
        pq.write_table(pa.table(rows), task / f"{split}.parquet")
    (task / "labels.json").write_text(json.dumps({"label_names": ["no", "yes"]}))


def write_pool(folder: Path, out: Path) -> None:
    """Write the candidates that the experiment selects from, for `gotd select`."""
    out.mkdir()
    for part in Folder(str(folder)).candidates():
        with pq.ParquetWriter(out / f"{part.label}.parquet", next(part.pieces()).schema) as writer:
            for piece in part.pieces():
                writer.write_table(piece)


def measured(command: Sequence[str], store: Path) -> dict[str, float]:
    """Run a command; return its elapsed and processor seconds, and its peak memory, in GiB.

    The memory is the resident one without mapped files, of the process and its children.
    """
    began, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    with (store.parent / "log.txt").open("a") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
        peak = [0.0]
        watcher = threading.Thread(target=_watch, args=(process, peak))
        watcher.start()
        status = process.wait()
        watcher.join()
    if status:
        raise SystemExit((store.parent / "log.txt").read_text()[-2000:])
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    core_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    elapsed_s = round(time.perf_counter() - began, 1)
    return {"elapsed_s": elapsed_s, "core_s": core_s, "peak_anonymous_gib": peak[0]}


def _watch(process: subprocess.Popen[bytes], peak: list[float]) -> None:
    last = 0.0
    while process.poll() is None:
        gib = round(sum(map(_anonymous_kib, _family(process.pid))) / 2**20, 3)
        # For an instant a new child counts the memory of its parent, so one sample is no peak.
        peak[0] = max(peak[0], min(last, gib))
        last = gib
        time.sleep(0.05)


def _family(pid: int) -> list[int]:
    """Return a process and its descendants."""
    pids = [pid]
    for children in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            for child in children.read_text().split():
                pids += _family(int(child))
        except OSError:  # it has ended meanwhile
            continue
    return pids


def _anonymous_kib(pid: int) -> int:
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0
    lines = [line for line in status.splitlines() if line.startswith("RssAnon")]
    return int(lines[0].split()[1]) if lines else 0


def measure(folder: Path, chunks: int) -> dict[str, Any]:
    """Run both and compare what they select."""
    store = folder / "store"
    write_folder(folder / "data", chunks)
    write_pool(folder / "data", folder / "pool")
    cell = [
        *(sys.executable, "-m", "gotd.cli.main", "run", "experiment=domain", "scale=folder"),
        *(f"source.path={folder / 'data'}", f"store={store}", f"seed={SEED}", "task=imdb"),
        *("selector=got_d", "embedder=tfidf_svd", f"budget={BUDGET}", "candidates.screen=null"),
        *("candidates.limit=null", f"candidate_chunks.length_chars={LENGTH_CHARS}"),
        *("candidate_chunks.min_chars=0", "target_chunks.min_chars=0"),
        *("target_chunks.unit=whole", "hydra/launcher=basic", "tracker=none", "threads=2"),
        *("model=micro", "model.spec.tokenizer=wordpiece", "model.spec.vocabulary_size=2000"),
        *("model.pretraining.epochs=0", "model.pretraining_rows=2000"),
        *("pre_fine_tune=micro", "pre_fine_tune.epochs=1", "fine_tune=micro"),
        "fine_tune.epochs=1",
    ]
    experiment = measured(cell, store)
    (selected,) = store.glob("selection/*/selection.parquet")
    (rows,) = store.glob("task/*/train.parquet")
    target = folder / "target.parquet"
    pq.write_table(pq.read_table(rows, columns=["id", "text"]), target)
    out = folder / "selected"
    select = measured(
        [
            *(sys.executable, "-m", "gotd.cli.main", "select", "--target", str(target)),
            *("--candidates", str(folder / "pool"), "--budget", str(BUDGET), "--out", str(out)),
            *("--unit", "fixed", "--length-chars", str(LENGTH_CHARS), "--encoder", "tfidf_svd"),
            *("--seed", str(derive_seeds(SEED)["selection"]), "--store", str(folder / "other")),
        ],
        store,
    )
    ids = [
        pq.read_table(path, columns=["id"])["id"].to_pylist()
        for path in (selected, out / "selected.parquet")
    ]
    (pool,) = store.glob("pool/candidates-*/shards.json")
    return {
        "chunks": sum(json.loads(pool.read_text())["rows"]),
        "budget": BUDGET,
        "seed": SEED,
        "experiment": experiment,
        "gotd_select": select,
        "same_ids_in_order": ids[0] == ids[1],
        "same_ids": sorted(ids[0]) == sorted(ids[1]),
        "hardware": hardware(),
        "code": code(),
    }


def main() -> None:
    """Measure, print and write the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--chunks", type=int, default=2_000_000)
    parser.add_argument("--quick", action="store_true", help="20,000 chunks; writes no result")
    parser.add_argument("--folder", type=Path, help="where to work (a temporary folder)")
    options = parser.parse_args()
    chunks = 20_000 if options.quick else options.chunks
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        result = measure(Path(folder), chunks)
    print(json.dumps(result, indent=1))
    if not options.quick:
        RESULTS.mkdir(exist_ok=True)
        (RESULTS / "large_pool.json").write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
