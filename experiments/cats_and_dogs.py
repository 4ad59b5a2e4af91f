"""Figure 3 of GOT-D in the plane: why matching the target is not what a model needs.

A model has seen 99 % cats. The task is half cats, half dogs. Which few unlabelled
examples should it see before it is fine-tuned?

    nearest                closest to any target        what the pool is full of: cats
    distribution matching  distributed like the target  half and half
    GOT-D                  what moves pool to target    the missing half: dogs

Usage: python experiments/cats_and_dogs.py [--out artifacts/figures] [--seed 0]
Needs nothing but a processor and a few seconds. Writes cats_and_dogs.svg and .png.

Source: GOT-D (ICLR 2024), Figure 3 and Lemma 1.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pyarrow as pa
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from scipy.stats import gaussian_kde

from gotd.data.rows import Rows
from gotd.engine.local import LocalEngine
from gotd.selectors.base import Selector
from gotd.selectors.got_d import GotD
from gotd.selectors.nearest import Nearest
from gotd.transport import Compute, Problem, score, solve_semidual
from gotd.transport.nearest import nearest_cost

N_POOL, CAT_SHARE, N_TARGET, BUDGET = 12_000, 0.99, 200, 50
CATS_AT, DOGS_AT, SPREAD = -1.9, 1.9, 0.8

# Lemma 1: light training on a selection acts like training on a mixture of the selection
# and everything seen before. The paper never measures the weight; this one illustrates.
SELECTION_WEIGHT = 0.3

CAT, DOG, INK, PAPER = "#3b6ea5", "#e07a1f", "#22262b", "#ffffff"
GREY = "#5b6168"
FIELD = LinearSegmentedColormap.from_list("field", ["#a48bc4", "#d9cde8", "#f3eff8", "#ffffff"])
X_LIMITS, Y_LIMITS = (-4.3, 4.3), (-2.7, 3.1)

Field = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class World:
    """Animals as points in the plane: cats on the left, dogs on the right.

    Args:
        pool: ``[n, 2]`` candidates, drawn like the pre-training data.
        pool_is_dog: ``[n]`` booleans; no selector reads them.
        target: ``[m, 2]`` targets.
        target_is_dog: ``[m]`` booleans.
    """

    pool: np.ndarray
    pool_is_dog: np.ndarray
    target: np.ndarray
    target_is_dog: np.ndarray


@dataclass(frozen=True)
class Arm:
    """Selection of one method.

    Args:
        title: Name in the picture.
        rule: Its rule in a few words.
        chosen: ``[budget]`` selected rows of the pool.
        field: What the method ranks by, lower first, at any ``[k, 2]`` points.
        dogs: Share of dogs among them.
        dogs_seen: Share of dogs in the mixture that the model has seen afterwards.
        transport_cost: From that mixture to the target.
    """

    title: str
    rule: str
    chosen: np.ndarray
    field: Field
    dogs: float
    dogs_seen: float
    transport_cost: float


def draw_world(seed: int) -> World:
    """Draw a pool of 99 % cats and a target of half cats, half dogs."""
    rng = np.random.default_rng(seed)

    def animals(n_cats: int, n_dogs: int) -> tuple[np.ndarray, np.ndarray]:
        cats = rng.normal([CATS_AT, 0.0], SPREAD, size=(n_cats, 2))
        dogs = rng.normal([DOGS_AT, 0.0], SPREAD, size=(n_dogs, 2))
        rows = np.concatenate([cats, dogs]).astype(np.float32)
        return rows, np.arange(len(rows)) >= n_cats

    n_cats = round(CAT_SHARE * N_POOL)
    pool, pool_is_dog = animals(n_cats, N_POOL - n_cats)
    target, target_is_dog = animals(N_TARGET // 2, N_TARGET // 2)
    return World(pool, pool_is_dog, target, target_is_dog)


def select(selector: Selector, world: World) -> np.ndarray:
    """Return the rows that a selector of this project selects."""

    def shard(rows: np.ndarray) -> Rows:
        ids = pa.array([f"{i:06d}" for i in range(len(rows))])
        return Rows(ids, ids, embeddings=rows)

    ranking = selector.rank(shard(world.target), [shard(world.pool)], BUDGET, 0, LocalEngine())
    return np.array([int(name) for name in ranking.ids.to_pylist()])


def match_distribution(world: World, seed: int) -> tuple[np.ndarray, Field]:
    """Resample the pool by the ratio of densities, as DSIR does with n-grams.

    Systematic resampling: ``budget`` equally spaced ticks on the cumulated weights
    ``p_target / p_pool``. A row heavier than a tick may be taken twice.
    """
    p_target = gaussian_kde(world.target.T)
    p_pool = gaussian_kde(world.pool[:: len(world.pool) // 4000].T)
    floor = 1e-4  # far from all data both densities vanish and their ratio is noise

    def field(points: np.ndarray) -> np.ndarray:
        return np.log(p_pool(points.T) + floor) - np.log(p_target(points.T) + floor)

    weights = np.cumsum(np.exp(-field(world.pool)))
    ticks = (np.random.default_rng([seed, 1]).random() + np.arange(BUDGET)) / BUDGET
    return np.searchsorted(weights, ticks * weights[-1]), field


def transport_cost(world: World, chosen: np.ndarray) -> float:
    """Compute the transport cost from what the model has seen to the target."""
    mass = np.full(len(world.pool), (1.0 - SELECTION_WEIGHT) / len(world.pool))
    np.add.at(mass, chosen, SELECTION_WEIGHT / len(chosen))
    problem = Problem(
        world.target, [world.pool], epsilon=0.1, epsilon_is="absolute", candidate_mass=[mass]
    )
    return solve_semidual(problem).value


def pool_cost(world: World) -> float:
    """Compute the transport cost from the pool to the target."""
    return transport_cost(world, np.arange(len(world.pool)))


def run_arms(world: World, seed: int) -> list[Arm]:
    """Run each method on the same pool."""
    problem = Problem(world.target, [world.pool])
    potentials = solve_semidual(problem)

    def at(points: np.ndarray) -> Problem:
        return Problem(world.target, [points.astype(np.float32)])

    def arm(title: str, rule: str, chosen: np.ndarray, field: Field) -> Arm:
        dogs = float(world.pool_is_dog[chosen].mean())
        seen = SELECTION_WEIGHT * dogs + (1 - SELECTION_WEIGHT) * float(world.pool_is_dog.mean())
        return Arm(title, rule, chosen, field, dogs, seen, transport_cost(world, chosen))

    compute = Compute(precision="float64")
    return [
        arm(
            "Nearest",
            "closest to any target",
            select(Nearest(), world),
            lambda points: nearest_cost(at(points), compute)[0],
        ),
        arm(
            "Distribution matching",
            "distributed like the target",
            *match_distribution(world, seed),
        ),
        arm(
            "GOT-D",
            "moves the pool towards the target",
            select(GotD(), world),
            lambda points: score(at(points), potentials, compute)[0][0],
        ),
    ]


def draw_figure(world: World, arms: list[Arm]) -> Figure:
    """Draw the setting and the methods in one row, each over the score it ranks by."""
    with mpl.rc_context({"font.family": "DejaVu Sans", "font.size": 9.5, "svg.hashsalt": "gotd"}):
        figure = Figure(figsize=(13.6, 5.35), facecolor=PAPER)
        grid = {"height_ratios": [1, 0.68], "hspace": 0.05, "wspace": 0.06}
        grid |= {"left": 0.014, "right": 0.988, "top": 0.765, "bottom": 0.02}
        axes = figure.subplots(2, 4, gridspec_kw=grid)
        pool_dogs, target_dogs = world.pool_is_dog.mean(), world.target_is_dog.mean()
        _draw_setting(axes[0, 0], world)
        rows = [("pool: what the model has seen", pool_dogs), ("target task", target_dogs)]
        _draw_bars(axes[1, 0], rows, f"transport cost to the target: {pool_cost(world):.2f}")
        for column, arm in enumerate(arms, start=1):
            _draw_arm(axes[0, column], world, arm)
            rows = [("picked", arm.dogs), ("what the model has then seen", arm.dogs_seen)]
            _draw_bars(axes[1, column], rows, f"cost left: {arm.transport_cost:.2f}")
        _draw_words(figure)
    return figure


def _frame(axes: Axes, title: str, subtitle: str) -> None:
    axes.set(xlim=X_LIMITS, ylim=Y_LIMITS, xticks=[], yticks=[], aspect="equal", anchor="S")
    for side in axes.spines.values():
        side.set(color="#c8ccd0", linewidth=0.8)
    axes.set_title(title, loc="left", fontsize=12.5, fontweight="bold", color=INK, pad=20)
    axes.text(0, 1.035, subtitle, transform=axes.transAxes, color=GREY)


def _draw_setting(axes: Axes, world: World) -> None:
    _frame(axes, "The setting", "dots: pool; rings: target, half and half")
    shown = np.random.default_rng(0).permutation(len(world.pool))[:5000]
    colors = np.where(world.pool_is_dog[shown], DOG, CAT)
    axes.scatter(*world.pool[shown].T, s=2.4, c=colors, alpha=0.5, linewidths=0, rasterized=True)
    colors = [DOG if is_dog else CAT for is_dog in world.target_is_dog]
    axes.scatter(*world.target.T, s=17, facecolors="none", edgecolors=PAPER, linewidths=2.6)
    axes.scatter(*world.target.T, s=17, facecolors="none", edgecolors=colors, linewidths=1.1)
    for x, name, color in ((CATS_AT, "cats", CAT), (DOGS_AT, "dogs", DOG)):
        axes.text(x, 2.52, name, ha="center", color=color, fontsize=11.5, fontweight="bold")


def _draw_arm(axes: Axes, world: World, arm: Arm) -> None:
    _frame(axes, arm.title, arm.rule)
    x, y = np.linspace(*X_LIMITS, 160), np.linspace(*Y_LIMITS, 110)
    points = np.stack(np.meshgrid(x, y), axis=-1).reshape(-1, 2)
    values = arm.field(points)
    # Bands of equal area: the three fields differ in unit, but orders can be compared.
    rank = np.argsort(np.argsort(values)).reshape(len(y), len(x)) / len(values)
    bands = axes.contourf(x, y, rank, levels=np.linspace(0, 1, 15), cmap=FIELD, zorder=0)
    bands.set_rasterized(True)  # thousands of contour corners would swell the SVG
    axes.scatter(*world.target.T, s=13, facecolors="none", edgecolors="#7d858d", linewidths=0.6)
    colors = np.where(world.pool_is_dog[arm.chosen], DOG, CAT)
    rows = world.pool[arm.chosen].T
    axes.scatter(*rows, s=34, c=colors, edgecolors=PAPER, linewidths=0.8, zorder=3)


def _draw_bars(axes: Axes, rows: list[tuple[str, float]], note: str) -> None:
    axes.set(xlim=(0, 1), ylim=(-0.95, 2.12), xticks=[], yticks=[])
    axes.set_frame_on(False)
    bold: dict[str, Any] = {"va": "center", "fontweight": "bold", "color": PAPER}
    for y, (name, dogs) in zip((1.15, 0.0), rows, strict=True):
        axes.text(0, y + 0.4, name, color=INK, va="bottom")
        axes.barh(y, 1 - dogs, height=0.6, color=CAT, linewidth=0)
        axes.barh(y, dogs, left=1 - dogs, height=0.6, color=DOG, linewidth=0)
        if dogs < 0.8:
            axes.text(0.02, y, f"{1 - dogs:.0%} cats", **bold)
        if dogs > 0.2:
            axes.text(0.98, y, f"{dogs:.0%} dogs", ha="right", **bold)
        else:
            axes.text(0.98 - dogs, y, f"{dogs:.0%} dogs", ha="right", **bold)
    axes.text(0, -0.72, note, color=GREY)


def _draw_words(figure: Figure) -> None:
    title = "A model that has seen 99% cats needs dogs, not a copy of the target"
    figure.text(0.014, 0.935, title, fontsize=16, fontweight="bold", color=INK)
    words = (
        f"Each method picks {BUDGET} of {N_POOL:,} unlabelled points (large dots) and prefers "
        "darker ground; grey rings are the target. Second bar: "
        f"{1 - SELECTION_WEIGHT:.0%} pool + {SELECTION_WEIGHT:.0%} picks."
    )
    figure.text(0.014, 0.888, words, color=GREY, fontsize=10)


def report(arms: list[Arm], world: World) -> str:
    """Return the table of shares."""
    lines = [
        f"{'arm':<24}{'cats':>7}{'dogs':>7}{'dogs seen then':>16}{'cost to target':>16}",
        f"{'(nothing)':<38}{world.pool_is_dog.mean():>16.1%}{pool_cost(world):>16.2f}",
    ]
    lines += [
        f"{arm.title:<24}{1 - arm.dogs:>7.0%}{arm.dogs:>7.0%}"
        f"{arm.dogs_seen:>16.1%}{arm.transport_cost:>16.2f}"
        for arm in arms
    ]
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> list[Arm]:
    """Run the demonstration, write the picture and print the shares."""
    parser = argparse.ArgumentParser(description="Figure 3 of GOT-D, in the plane.")
    parser.add_argument("--out", type=Path, default=Path("artifacts/figures"))
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    world = draw_world(options.seed)
    arms = run_arms(world, options.seed)
    figure = draw_figure(world, arms)
    options.out.mkdir(parents=True, exist_ok=True)
    for ending in ("svg", "png"):
        metadata = {"Date": None} if ending == "svg" else {}
        figure.savefig(options.out / f"cats_and_dogs.{ending}", dpi=200, metadata=metadata)
    print(report(arms, world))
    print(f"\npicture: {options.out / 'cats_and_dogs.png'}")
    return arms


if __name__ == "__main__":
    main()
