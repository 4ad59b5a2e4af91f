import numpy as np
import pytest

from gotd.reporting.cells import average_interval, blocks, order_arms, order_tasks
from gotd.reporting.records import RecordError, validate


def test_orders_are_the_papers_with_bounds_last():
    arms = ["oracle", "zeta", "got_d", "none", "alpha", "half_oracle", "random"]
    expected = ("none", "random", "got_d", "alpha", "zeta", "half_oracle", "oracle")
    assert order_arms(arms) == expected
    assert order_tasks(["agnews", "rte", "zz", "cola"]) == ("cola", "rte", "agnews", "zz")


def test_the_arm_without_selection_stands_in_every_budget(make_records):
    larger = make_records(seeds=2, budget=800, arms=("random", "got_d"))
    found = blocks(make_records(seeds=2, budget=400) + larger)
    assert [b.axes["budget"] for b in found] == [400, 800]
    assert all(b.arms[0] == "none" for b in found)
    assert all(not np.isnan(b.scores("none")).any() for b in found)


def test_models_and_scales_never_share_a_block(make_records):
    records = [
        *make_records(seeds=2),
        *make_records(seeds=2, model="bert"),
        *make_records(seeds=2, scale="folder", source="folder"),
    ]
    found = blocks(records)
    assert len(found) == 3
    assert sum(len(b.cells) for b in found) == len(records)
    assert [b.seed_is_world for b in found].count(False) == 1


def test_each_base_model_has_a_block_of_its_own(make_records):
    """Arms are comparable with the same base only, so Holm runs over those of one base."""
    other = {"variant": "model.seed=1 transport.epsilon=0.1"}
    records = [
        *make_records(seeds=2, arms=("none", "random", "got_d")),
        *make_records(seeds=2, arms=("none", "got_d"), variant="model.seed=1"),
        *make_records(seeds=2, arms=("got_d",), **other),
    ]
    first, second = blocks(records)
    assert first.arms == ("none", "random", "got_d")
    assert second.axes["base"] == "model.seed=1"
    assert second.arms == ("none", "got_d", "got_d, transport.epsilon=0.1")
    assert len(first.cells) + len(second.cells) == len(records)


def test_a_null_axis_joins_every_block_that_agrees(make_records):
    records = [
        *make_records(seeds=2, arms=("none", "random"), embedder=None),
        *make_records(seeds=2, arms=("got_d",), embedder="tokens"),
        *make_records(seeds=2, arms=("got_d",), embedder="tfidf_svd"),
    ]
    found = blocks(records)
    assert [b.axes["embedder"] for b in found] == ["tfidf_svd", "tokens"]
    assert all(b.arms == ("none", "random", "got_d") for b in found)


def test_a_row_is_never_filled_up_with_another_setting(make_records):
    """Five seeds without an embedder, three with: the three stay three."""
    records = [
        *make_records(seeds=5, arms=("got_d", "none"), embedder=None),
        *make_records(seeds=3, arms=("got_d",), embedder="tokens"),
    ]
    found = {b.axes.get("embedder"): b for b in blocks(records)}
    rich = found["tokens"].scores("got_d")
    assert np.isnan(rich[:, 3:]).all()
    assert not np.isnan(rich[:, :3]).any()
    # The plain setting is not lost: what stands in no other block gets its own.
    assert not np.isnan(found[None].scores("got_d")).any()


def test_variants_are_rows_of_their_own_unless_all_share_one(make_records):
    plain = make_records(seeds=2, arms=("none", "got_d"))
    varied = make_records(seeds=2, arms=("got_d",), variant="transport.epsilon=0.1")
    (block,) = blocks(plain + varied)
    assert block.arms == ("none", "got_d", "got_d, transport.epsilon=0.1")
    (alone,) = blocks(varied)
    assert alone.arms == ("got_d",)
    assert alone.axes["variant"] == "transport.epsilon=0.1"


def test_a_seed_without_every_task_is_not_averaged(make_records, failed):
    records = make_records(seeds=4, arms=("none", "got_d"))
    hit = next(i for i, r in enumerate(records) if r["axes"]["arm"] == "got_d")
    records[hit] = failed(records[hit])
    (block,) = blocks(records)
    assert average_interval(block, "got_d").n == 3
    assert average_interval(block, "none").n == 4
    complete = block.scores("got_d")[:, 1:]
    assert average_interval(block, "got_d").mean == pytest.approx(complete.mean())


def test_two_records_for_one_cell_are_refused_with_the_reason(record):
    first = record("cola", "got_d", 1, score=0.5)
    second = {**first, "key": "other", "config": {"learning_rate": 0.1}}
    with pytest.raises(RecordError, match="differ in learning_rate.*remove the outdated"):
        blocks([first, second])


def test_one_task_has_one_headline(record):
    first = record("cola", "got_d", 1, score=0.5)
    second = record("cola", "got_d", 2, score=0.5)
    second["metrics"] = {"headline": 0.5, "headline_name": "accuracy"}
    (block,) = blocks([first, second])
    with pytest.raises(RecordError, match="accuracy, matthews_correlation"):
        block.metric_of("cola")


def test_a_record_may_state_the_direction_of_a_metric_that_is_not_installed(record):
    plain = record("cola", "got_d", 1, score=0.5)
    plain["metrics"] = {"headline": 0.5, "headline_name": "brier"}
    (block,) = blocks([plain])
    assert block.metric_of("cola").higher_is_better
    stated = {**plain, "metrics": {**plain["metrics"], "headline_higher_is_better": False}}
    (block,) = blocks([validate(stated)])
    assert not block.metric_of("cola").higher_is_better
    with pytest.raises(
        RecordError, match="headline_higher_is_better' is 1: it should be a valid bool"
    ):
        validate({**plain, "metrics": {**plain["metrics"], "headline_higher_is_better": 1}})


def test_unlike_metrics_are_never_averaged(record):
    first = record("cola", "got_d", 1, score=0.5)
    second = record("lm", "got_d", 1, score=20.0)
    second["metrics"] = {"headline": 20.0, "headline_name": "perplexity"}
    (block,) = blocks([first, second])
    assert not block.comparable
    assert not block.has_average
