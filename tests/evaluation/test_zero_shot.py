from types import SimpleNamespace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gotd.evaluation import ranges
from gotd.evaluation.likelihood import Likelihood, load_for_scoring
from gotd.evaluation.zero_shot import METHODS, Prompt, ZeroShot, decide, score_choices

from .conftest import POSITIONS, plain_losses

NEWS = Prompt("{text}", " {choice}", ("World", "Sports", "Business", "Science/Technology"))
QUESTION = Prompt("{text_pair} Question: {text}? The answer is", choices=("No", "Yes"))
GAP = Prompt("{before}{choice}", " {after}")

ROWS = pa.table(
    {
        "id": ["a", "b", "c"],
        "text": ["the cat _ on the mat", "_ sat", "is the answer _ or no ?"],
        "text_pair": ["a mat", "yes and no", "the cat sat"],
        "choices": [["sat", "did sit"], ["the cat", "a mat"], ["yes", "no"]],
    }
)


@pytest.fixture(scope="module", params=["gpt_folder", "gpt_neo_folder"])
def loaded(request):
    return load_for_scoring(request.getfixturevalue(request.param))


@pytest.mark.parametrize("prompt", [NEWS, QUESTION, GAP])
@pytest.mark.parametrize("whole", [True, False])
def test_scores_are_those_of_each_full_text_alone(loaded, prompt, whole):
    network, tokenizer = loaded
    scores = score_choices(Likelihood(network), tokenizer, ROWS, prompt, whole)
    for i, row in enumerate(ROWS.to_pylist()):
        options = prompt.choices or row["choices"]
        for c, choice in enumerate(options):
            if prompt is GAP:
                before, after = row["text"].split("_")
                context, instance = before + choice, before + choice + " " + after.strip()
            elif prompt is NEWS:
                context, instance = row["text"], f"{row['text']} {choice}"
            else:
                context = f"{row['text_pair']} Question: {row['text']}? The answer is"
                instance = f"{context} {choice}"
            ids = tokenizer(instance)["input_ids"]
            start = 1 if whole else len(tokenizer(context)["input_ids"])
            expected = plain_losses(network, ids)[start - 1 :]
            assert scores["losses"][i].as_py()[c] == pytest.approx(expected.sum(), abs=1e-4)
            assert scores["tokens"][i].as_py()[c] == len(expected)
            assert scores["characters"][i].as_py()[c] == len(choice)


@pytest.mark.parametrize("whole", [True, False])
@pytest.mark.parametrize(
    ("choices", "message"),
    [
        (["sat", ""], "row 'r' has an empty choice"),
        ([" ", "sat"], "row 'r' has an empty choice"),
        ([None, "sat"], "row 'r' has an empty choice"),
        (["sat", "did sit"], "row 'r': choice 1 adds no token"),
    ],
)
def test_a_choice_of_which_nothing_is_scored_is_refused(loaded, choices, message, whole):
    """A12: a sum over nothing was the best score."""
    network, tokenizer = loaded
    rows = pa.table({"id": ["r"], "text": ["" if whole else "the cat"], "choices": [choices]})
    prompt = Prompt("{text}", "")  # a template that leaves the choice out
    with pytest.raises(ValueError, match=message):
        score_choices(Likelihood(network), tokenizer, rows, prompt, whole)


def test_methods_compare_what_they_say():
    scores = pa.table(
        {
            "id": ["r"],
            "losses": [[6.0, 5.8, 8.0]],
            "tokens": [[3, 2, 4]],
            "characters": [[1, 10, 20]],
            "cut_tokens": [0],
        }
    )
    taken = {method: int(decide(scores, method)[0]) for method in METHODS}
    assert taken == {
        "perplexity": 0,  # 2.0, 2.9, 2.0: the first of equals
        "perplexity_all_tokens": 0,  # 1.5, 1.93, 1.6
        "log_likelihood": 1,
        "log_likelihood_per_character": 2,
    }
    short = scores.set_column(1, "losses", pa.array([[3.0, 4.1, 20.0]]))
    short = short.set_column(2, "tokens", pa.array([[1, 2, 4]]))
    assert decide(short, "perplexity") == [1]  # 3.0, 2.05, 5.0
    assert decide(short, "perplexity_all_tokens") == [1]  # 1.5, 1.37, 4.0
    shorter = short.set_column(1, "losses", pa.array([[3.0, 4.6, 20.0]]))
    assert decide(shorter, "perplexity") == [1]  # 3.0, 2.3, 5.0
    assert decide(shorter, "perplexity_all_tokens") == [0]  # 1.5, 1.53, 4.0
    with pytest.raises(ValueError, match="method"):
        decide(scores, "likeliest")
    broken = scores.set_column(1, "losses", pa.array([[1.0, float("nan"), 2.0]]))
    with pytest.raises(ValueError, match="row 'r' is not finite"):
        decide(broken, "log_likelihood")


def test_a_long_context_is_cut_at_its_beginning_alike_for_all_choices(loaded):
    network, tokenizer = loaded
    text = ("the cat sat on the mat " * 20).rstrip()
    rows = pa.table({"id": ["long"], "text": [text]})
    scores = score_choices(Likelihood(network), tokenizer, rows, NEWS, full_text=False)
    ids = [tokenizer(f"{text} {c}")["input_ids"] for c in NEWS.choices]
    cut = scores["cut_tokens"][0].as_py()
    assert cut == max(map(len, ids)) - (POSITIONS + 1)
    start = len(tokenizer(text)["input_ids"]) - cut
    expected = plain_losses(network, ids[0][cut:])[start - 1 :].sum()
    assert scores["losses"][0].as_py()[0] == pytest.approx(expected, abs=1e-4)
    long_choice = pa.table({"id": ["x"], "text": ["a"], "choices": [["b " * 200, "c"]]})
    with pytest.raises(ValueError, match="'x': its choices alone"):
        score_choices(Likelihood(network), tokenizer, long_choice, Prompt("{text}"), True)


def test_a_killed_run_scores_the_same(loaded, tmp_path, monkeypatch):
    monkeypatch.setattr(ranges, "ROWS_PER_RANGE", 2)
    likelihood, tokenizer = Likelihood(loaded[0]), loaded[1]

    def score_some(rows):
        return score_choices(likelihood, tokenizer, rows, NEWS, full_text=True)

    scores = ranges.by_range(ROWS, score_some, tmp_path)
    kept, lost = sorted(tmp_path.iterdir())
    lost.unlink()
    before = kept.stat().st_mtime_ns
    resumed = ranges.by_range(ROWS, score_some, tmp_path)
    assert resumed.equals(scores)
    assert str(resumed.schema) == str(scores.schema)  # a list's items have one name
    assert kept.stat().st_mtime_ns == before


def test_results_say_how_the_answers_were_taken(tmp_path):
    task = SimpleNamespace(
        reported_splits={"test": "test"}, metrics=("accuracy",), headline="accuracy"
    )
    table = pa.table(
        {
            "id": ["a", "b", "c", "d"],
            "losses": [[9.0, 8.0], [5.0, 2.0], [3.0, 3.1], [4.0, 1.0]],
            "tokens": [[3, 2], [2, 2], [2, 2], [2, 2]],
            "characters": [[1, 1]] * 4,
            "label": [0.0, 1.0, 0.0, 0.0],
            "domain": ["x", "x", "y", "y"],
        }
    )
    pq.write_table(table, tmp_path / "test.parquet")
    found = ZeroShot().results({"answers": tmp_path}, task)
    assert found.n_eval == 4
    assert found.metrics == {
        "accuracy": 0.75,
        "headline": 0.75,
        "headline_name": "accuracy",
        "most_given_share": 0.5,
        "accuracy_by_all_tokens": 0.75,
        "domain/x": 1.0,
        "domain/y": 0.5,
    }
    for wrong in ({"method": "best"}, {"precision": "int8"}, {"batch_tokens": 0}):
        with pytest.raises(ValueError, match=f"evaluation {next(iter(wrong))}"):
            ZeroShot(**wrong)


def test_prompts_that_cannot_be_filled_are_refused(loaded):
    with pytest.raises(ValueError, match="may name text"):
        Prompt("{passage}")
    with pytest.raises(ValueError, match="may name text"):
        Prompt("{text")
    with pytest.raises(ValueError, match="two choices"):
        Prompt("{text}", choices=("one",))
    network, tokenizer = loaded
    with pytest.raises(ValueError, match="no column 'choices'"):
        score_choices(
            Likelihood(network), tokenizer, ROWS.drop_columns("choices"), Prompt("{text}"), True
        )
    one = ROWS.set_column(3, "choices", pa.array([["a"], ["b", "c"], ["d", "e"]]))
    with pytest.raises(ValueError, match="row 'a' has fewer"):
        score_choices(Likelihood(network), tokenizer, one, Prompt("{text}"), True)
