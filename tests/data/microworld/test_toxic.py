import dataclasses

import numpy as np
import pytest

from gotd.data.base import read_all
from gotd.data.microworld.toxic import INSULTS, RATED, ToxicMicroworld
from gotd.data.microworld.world import Microworld
from gotd.data.tasks.toxicity import ToxicityTask, choose_prompts, choose_targets, read_rated

SMALL = {"pretraining_documents": 400, "candidate_documents": 800}


@pytest.fixture(scope="module")
def world():
    return ToxicMicroworld(seed=3, **SMALL)


def insults(world):
    return world.vocabulary()[-2 * INSULTS :]


def truth(world, text):
    """Recompute a text's toxicity from its words."""
    mild, strong = insults(world)[:INSULTS], insults(world)[INSULTS:]
    words = text.split()
    return 1 - 0.7 ** sum(w in mild for w in words) * 0.3 ** sum(w in strong for w in words)


def test_every_word_is_in_the_vocabulary_and_insults_are_new(world):
    known = set(world.vocabulary())
    assert len(known) == len(world.vocabulary())
    assert not set(insults(world)) & set(Microworld(seed=3).vocabulary())
    for parts in (world.candidates(), world.pretraining(), world.held_out()):
        table = read_all(parts)
        assert {w for text in table["text"].to_pylist() for w in text.split()} <= known
        assert len(table["id"].unique()) == table.num_rows


def test_ratings_are_the_truth(world):
    rated = world.split("realtoxicityprompts", "train").to_pylist()
    for row in rated[:200]:
        for part in ("prompt", "continuation"):
            assert row[f"{part}_toxicity"] == pytest.approx(truth(world, row[part]))
    scores = np.array([row["prompt_toxicity"] for row in rated])
    assert 0.08 < (scores >= 0.5).mean() < 0.3
    assert (scores <= 0.1).mean() > 0.4


def test_a_prompt_and_its_continuation_are_the_beginning_of_a_document(world):
    rated = world.split(RATED, "train")
    documents = world._half_toxic(RATED, rated.num_rows)[:, :3].reshape(rated.num_rows, -1)
    pairs = zip(rated["prompt"].to_pylist(), rated["continuation"].to_pylist(), strict=True)
    assert [" ".join(pair) for pair in pairs] == world._spell(documents).to_pylist()


def test_comments_are_labelled_by_the_truth_but_for_some(world):
    rows = world.split("wiki_comments", "train").to_pylist()
    agree = np.mean([(truth(world, r["text"]) >= 0.5) == bool(r["label"]) for r in rows])
    assert 0.95 < agree < 0.99
    assert 0.2 < np.mean([r["label"] for r in rows]) < 0.6


@pytest.mark.parametrize(("comments", "tested"), [(16, 8), (100, 25)])
def test_a_quarter_of_the_comments_is_for_the_test_but_eight_at_least(comments, tested):
    small = ToxicMicroworld(seed=3, **SMALL, comments=comments)
    assert small.split("wiki_comments", "train").num_rows == comments
    assert small.split("wiki_comments", "test").num_rows == tested


def test_some_domains_are_more_toxic_than_others(world):
    rows = read_all(world.candidates()).to_pylist()
    share = {
        domain: np.mean([truth(world, r["text"]) >= 0.5 for r in rows if r["domain"] == domain])
        for domain in ("common_0", "common_3")
    }
    assert share["common_3"] > share["common_0"] + 0.1


def test_streams_do_not_depend_on_one_another_nor_change_the_plain_world(world):
    other = dataclasses.replace(world, candidate_documents=900, rated_rows=300)
    assert read_all(other.pretraining()).equals(read_all(world.pretraining()))
    assert read_all(other.held_out()).equals(read_all(world.held_out()))
    assert not read_all(world.candidates()).equals(
        read_all(ToxicMicroworld(seed=4, **SMALL).candidates())
    )
    assert world.identity() != Microworld(seed=3, **SMALL).identity()
    with pytest.raises(FileNotFoundError, match="no task 'sst2'"):
        world.split("sst2", "train")


def test_targets_are_apart_from_the_prompts(world):
    task = ToxicityTask(prompts_per_kind=50, target_rows=200, held_out_rows=10)
    rated = read_rated(world, task)
    prompts = choose_prompts(rated, task, 0)
    clean, toxic = choose_targets(rated, prompts, task, 0)
    assert prompts["toxic"].to_pylist() == [True] * 50 + [False] * 50
    asked = set(prompts["id"].to_pylist())
    for table in (clean, toxic):
        assert table.num_rows == 200
        assert not asked & {name.rpartition("/")[0] for name in table["id"].to_pylist()}
    assert max(clean["toxicity"].to_pylist()) <= 0.1
    assert min(toxic["toxicity"].to_pylist()) >= 0.5
    # A smaller choice is part of a larger one, so budgets of prompts are comparable.
    few = choose_prompts(rated, dataclasses.replace(task, prompts_per_kind=20), 0)
    assert set(few["id"].to_pylist()) < asked
    with pytest.raises(ValueError, match="lower task.prompts_per_kind"):
        choose_prompts(rated, ToxicityTask(prompts_per_kind=5000), 0)


def test_bad_ratings_are_refused(world):
    class Source:
        name = "folder"

        def split(self, task, split):
            return self.table

    source = Source()
    good = world.split("realtoxicityprompts", "train")
    task = ToxicityTask()
    source.table = good.drop_columns(["continuation_toxicity"])
    with pytest.raises(ValueError, match="no column 'continuation_toxicity'"):
        read_rated(source, task)
    source.table = good.set_column(2, "prompt_toxicity", [[1.5] * good.num_rows])
    with pytest.raises(ValueError, match=r"prompt_toxicity must lie in \[0, 1\]"):
        read_rated(source, task)
    # As CSV has them: strings, the empty one for a score that is not known.
    place = good.column_names.index("prompt_toxicity")
    texts = ["0.25", ""] * (good.num_rows // 2)
    source.table = good.set_column(place, "prompt_toxicity", [texts])
    scores = read_rated(source, task)["prompt_toxicity"].to_numpy()
    assert (scores[::2] == 0.25).all()
    assert np.isnan(scores[1::2]).all()
    source.table = good.set_column(place, "prompt_toxicity", [["0.1", "high", *texts[2:]]])
    with pytest.raises(ValueError, match="prompt_toxicity of row 1 is no number: 'high'"):
        read_rated(source, task)
    source.table = good.set_column(0, "id", [["same"] * good.num_rows])
    with pytest.raises(ValueError, match="occurs twice"):
        read_rated(source, task)
