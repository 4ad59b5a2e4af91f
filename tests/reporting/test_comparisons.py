import numpy as np
import pytest

from gotd.reporting.cells import blocks
from gotd.reporting.comparisons import (
    average_comparisons_table,
    compare_on_average,
    compare_per_task,
    pairs,
    remaining_comparisons_table,
    task_comparisons_table,
)
from gotd.reporting.tables import seeds_note


def of(comparisons, arm, reference, task=None):
    (found,) = [c for c in comparisons if (c.arm, c.reference, c.task) == (arm, reference, task)]
    return found


def test_average_comparisons_use_seeds_as_units(make_records):
    (block,) = blocks(make_records(seeds=10))
    found = of(compare_on_average(block), "got_d", "random")
    by_hand = (block.scores("got_d") - block.scores("random")).mean(axis=0)
    assert found.test.n == 10  # not 30: three tasks of one world are one observation
    assert found.test.difference.mean == pytest.approx(by_hand.mean())
    assert found.test.p_value == 2 / 2**10
    assert found.verdict == "better than random"
    assert of(compare_on_average(block), "random", "none").test.detectable < 0.05


def test_no_pair_is_listed_twice(make_records):
    (block,) = blocks(make_records(seeds=2))
    listed = pairs(block)
    assert len({frozenset(pair) for pair in listed}) == len(listed)
    assert ("got_d", "dsir") in listed
    assert ("oracle", "none") in listed


def test_a_variant_meets_its_own_reference_or_the_plain_one(make_records):
    records = [
        *make_records(seeds=2, arms=("none", "random", "got_d")),
        *make_records(seeds=2, arms=("random", "got_d"), variant="x=1"),
        *make_records(seeds=2, arms=("got_d",), variant="x=2"),
    ]
    (block,) = blocks(records)
    listed = pairs(block)
    assert ("got_d, x=1", "random, x=1") in listed
    assert ("got_d, x=1", "random") not in listed
    assert ("got_d, x=2", "random") in listed
    assert ("got_d, x=2", "got_d") in listed


def test_pairs_exist_only_where_both_cells_do(make_records, failed):
    records = make_records(seeds=5, arms=("none", "got_d"), tasks=("cola", "sst2"))
    records = [
        failed(r) if (r["axes"]["seed"], r["axes"]["task"]) == (2, "cola") else r for r in records
    ]
    (block,) = blocks(records)
    assert of(compare_on_average(block), "got_d", "none").test.n == 4
    assert of(compare_per_task(block), "got_d", "none", "cola").test.n == 4
    assert of(compare_per_task(block), "got_d", "none", "sst2").test.n == 5


def test_an_incomplete_comparison_says_so(make_records, failed):
    records = make_records(seeds=9, arms=("none", "got_d"), tasks=("cola", "sst2"))
    records = [failed(r) if r["axes"]["seed"] == 2 else r for r in records]
    (block,) = blocks(records)
    assert of(compare_on_average(block), "got_d", "none").verdict == "better than none (incomplete)"


def test_verdicts_do_not_claim_more_than_the_seeds_allow(make_records):
    (few,) = blocks(make_records(seeds=3))
    assert not any(c.verdict for c in compare_on_average(few) + compare_per_task(few))
    (one,) = blocks(make_records(seeds=1))
    assert not any(c.verdict for c in compare_on_average(one))
    (noisy,) = blocks(make_records(seeds=10, arms=("none", "got_d"), noise=2.0))
    assert of(compare_on_average(noisy), "got_d", "none").verdict == ""


def test_only_registered_comparisons_are_tested(make_records):
    (block,) = blocks(make_records(seeds=10))
    tested = {(c.arm, c.reference) for c in compare_on_average(block) if c.holm_p is not None}
    assert tested == {("got_d", arm) for arm in ("none", "random", "nearest", "dsir")}
    assert of(compare_on_average(block), "oracle", "none").verdict == ""
    by_hand = sorted(c.test.p_value for c in compare_on_average(block) if c.holm_p is not None)
    adjusted = sorted(c.holm_p for c in compare_on_average(block) if c.holm_p is not None)
    assert adjusted[0] == pytest.approx(4 * by_hand[0])


def test_an_experiment_may_register_arms_of_its_own(make_records):
    arms = ("none", "dsir", "bm25", "half_oracle", "got_d", "got_d_path")
    (block,) = blocks(make_records(seeds=10, arms=arms, experiment="glue_varied"))
    tested = {(c.arm, c.reference) for c in compare_on_average(block) if c.holm_p is not None}
    assert tested == {("got_d", arm) for arm in ("none", "dsir", "bm25", "got_d_path")}
    table = average_comparisons_table(block)
    assert table is not None
    assert any("bm25" in note and "moore_lewis" in note for note in table.notes)


@pytest.mark.parametrize("seeds", [3, pytest.param(10, marks=pytest.mark.slow)])
def test_worlds_without_a_difference_get_a_verdict_in_one_table_of_twenty(record, seeds):
    """Simulate reports in which no arm differs: seeds and tasks have effects, arms have none."""
    arms, tasks, worlds = ("none", "random", "nearest", "dsir", "curated_tapt", "got_d"), 3, 400
    random = np.random.default_rng(1)
    names = ("cola", "sst2", "mnli")[:tasks]
    template = [
        record(task, arm, seed, score=0.0)
        for seed in range(seeds)
        for task in names
        for arm in arms
    ]
    (block,) = blocks(template)
    wrong = 0
    for _ in range(worlds):
        base = random.normal(0.6, 0.05, (tasks, seeds))
        drawn = {arm: base + random.normal(0, 0.02, (tasks, seeds)) for arm in arms}
        for (task, arm, seed), cell in block.cells.items():
            cell["metrics"]["headline"] = drawn[arm][names.index(task), seed]
        wrong += any(c.verdict for c in compare_on_average(block))
    # 5 % and three standard errors of the simulation.
    assert wrong / worlds <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / worlds)
    if seeds == 3:
        assert wrong == 0


def test_lower_is_better_turns_the_words_round(record):
    rng = np.random.default_rng(0)
    records = []
    for seed in range(1, 9):
        for arm, level in (("none", 0.6), ("got_d", 0.4)):
            one = record("rtp", arm, seed, score=0.5)
            value = level + float(rng.normal(0, 0.01))
            one["metrics"] = {"headline": value, "headline_name": "expected_max_toxicity"}
            records.append(one)
    (block,) = blocks(records)
    found = of(compare_per_task(block), "got_d", "none", "rtp")
    assert found.test.difference.mean < 0
    assert found.verdict == "better than none"
    assert compare_on_average(block) == compare_per_task(block)  # one task: its own average


def listed_in(table):
    return {frozenset(row[:2]) for row in table.rows}


def test_the_first_table_holds_the_registered_comparisons(make_records):
    arms = ("none", "random", "nearest", "dsir", "curated_tapt", "got_d", "oracle")
    (block,) = blocks(make_records(seeds=6, arms=arms))
    first, rest = average_comparisons_table(block), remaining_comparisons_table(block)
    assert first is not None
    assert rest is not None
    assert listed_in(first) == {frozenset(("got_d", arm)) for arm in arms[:5]}
    assert not listed_in(first) & listed_in(rest)
    assert frozenset(("oracle", "dsir")) in listed_in(rest)
    assert "verdict" in first.columns
    assert not {"p", "Holm p", "verdict"} & set(rest.columns)
    (few,) = blocks(make_records(seeds=2, arms=("none", "got_d")))
    assert remaining_comparisons_table(few) is None


def test_too_few_seeds_are_said_in_words(make_records):
    def notes(seeds):
        (block,) = blocks(make_records(seeds=seeds, arms=("none", "got_d", "oracle")))
        tables = average_comparisons_table(block), task_comparisons_table(block)
        return [[n for n in t.notes if "no test can be passed" in n] for t in tables]

    for found in notes(3):
        (note,) = found
        assert note.startswith("With 3 seeds the least two-sided sign-flip p is 2 / 2^3 = 0.25,")
        assert "at least 6 seeds, better 10" in note
    assert all(len(found) == 1 for found in notes(5))
    assert notes(6) == [[], []]


def test_a_seed_is_a_world_only_where_worlds_are_drawn(make_records):
    (world,) = blocks(make_records(seeds=2))
    (real,) = blocks(make_records(seeds=2, source="hub"))
    assert "world" in seeds_note(world)
    assert "world" not in seeds_note(real)
    assert "held-out rows" in seeds_note(real)
    assert "labelled subset" in seeds_note(real)
