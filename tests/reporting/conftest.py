"""A small generator of records with known effects; no measured number is among them."""

import numpy as np
import pytest

EFFECTS = {
    "none": 0.0,
    "random": 0.01,
    "nearest": 0.05,
    "dsir": 0.06,
    "got_d": 0.12,
    "oracle": 0.14,
}
HEADLINES = {"cola": "matthews_correlation", "sst2": "accuracy", "mnli": "accuracy"}


def make_record(task, arm, seed, *, score, budget=400, experiment="glue", scale="micro", **axes):
    """Build one valid done record."""
    headline = HEADLINES.get(task, "accuracy")
    rare = {"none": 0, "random": 6, "nearest": 100, "dsir": 120}.get(arm, 390) * budget // 400
    selection = None
    if arm != "none":
        selection = {
            "key": "5e1ec7",
            "rows": budget,
            "distinct_rows": budget,
            "with_replacement": False,
            "domains": {"rare_0": rare, "common_0": budget - rare},
            "target_domains": {"common_0": 0.5, "rare_0": 0.5},
            "under_covered_share": rare / budget,
            "first_rows": [{"id": "c1", "domain": "rare_0", "excerpt": "a text"}],
        }
    curve = [[step, round(5.0 - 0.1 * step - score, 6)] for step in (0, 10, 20)]
    return {
        "schema_version": 1,
        "key": f"{experiment}-{scale}-{task}-{arm}-{budget if selection else 0}-{seed}"
        + "".join(f"-{v}" for v in axes.values()),
        "experiment": experiment,
        "scale": scale,
        "status": "done",
        "axes": {
            "task": task,
            "arm": arm,
            "model": "micro",
            "budget": budget if selection else 0,
            "seed": seed,
            "tuning": "full",
            "source": "microworld",
            "protocol": "clean",
            "variant": "",
            **axes,
        },
        "metrics": {
            "headline": score,
            "headline_name": headline,
            headline: score,
            "domain/common_0": min(1.0, score + 0.05),
            "domain/rare_0": score - 0.05,
        },
        "n_eval": 1000,
        "selection": selection,
        "curves": {} if selection is None else {"pre_fine_tune_loss": curve},
        "seeds": {"selection": seed},
        "config": {"learning_rate": 0.001},
        "versions": {"python": "3.11.0"},
        "data": {"name": "microworld"},
        "parents": [],
        "error": None,
        "cost": {
            "started_at": f"2026-01-01T00:00:{seed:02d}+00:00",
            "elapsed_s": 2.0,
            "stages_s": {"selection": 0.5},
            "peak_memory_gib": 1.5,
            "hardware": {"cpu": "a cpu", "cores": 2, "gpu": None, "memory_gib": 24.0},
        },
    }


def fail(record, message="out of memory"):
    """Turn a done record into a failed one."""
    return {
        **record,
        "status": "failed",
        "metrics": {},
        "n_eval": None,
        "selection": None,
        "curves": {},
        "error": {"type": "RuntimeError", "message": message},
        "cost": {"started_at": "2026-01-01T00:00:00+00:00"},
    }


@pytest.fixture(scope="session")
def record():
    return make_record


@pytest.fixture(scope="session")
def failed():
    return fail


@pytest.fixture(scope="session")
def make_records():
    """Give a function that draws arms x tasks x seeds with the effects above plus noise."""

    def make(seeds=5, budget=400, arms=tuple(EFFECTS), tasks=tuple(HEADLINES), noise=0.01, **more):
        rng = np.random.default_rng(7)
        records = []
        for seed in range(1, seeds + 1):
            world = rng.normal(0.6, 0.05)
            for task in tasks:
                for arm in arms:
                    gain = EFFECTS.get(arm, 0.03) * (budget / 400) ** 0.3
                    score = float(np.round(world + gain + rng.normal(0, noise), 4))
                    records.append(make_record(task, arm, seed, score=score, budget=budget, **more))
        return records

    return make
