"""What a model writes and which choice it takes, against plain transformers and counts by hand."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from gotd.data.tasks.instruction import ANSWERED
from gotd.evaluation.instruction import RESPONSES, Instructed, respond, written_scores
from gotd.evaluation.likelihood import load_for_scoring
from gotd.training.causal_models import CausalSpec
from gotd.training.models import build_model

WORDS = [f"w{i}" for i in range(40)]


@pytest.fixture(scope="module")
def loaded(tmp_path_factory):
    folder = tmp_path_factory.mktemp("base")
    sizes = {"hidden_size": 32, "heads": 2, "feed_forward_size": 64, "max_length_tokens": 32}
    build_model(CausalSpec(tokenizer="word_level", **sizes), WORDS, 1, folder)
    return load_for_scoring(folder)


def rows(count: int) -> pa.Table:
    """Rows whose choices are two words, the second right, and every third without choices."""
    asked = [" ".join(WORDS[(3 * n + i) % 40] for i in range(1 + n % 5)) for n in range(count)]
    choices = [None if n % 3 == 0 else [WORDS[n], WORDS[n + 1]] for n in range(count)]
    fields = {
        "part": ["a" if n % 2 else "b" for n in range(count)],
        "references": [[WORDS[n + 1]] for n in range(count)],
        "choices": choices,
        "label": [None if row is None else 1 for row in choices],
        "number": [False] * count,
    }
    columns = {field.name: pa.array(fields[field.name], field.type) for field in ANSWERED}
    ids = [f"r{n}" for n in range(count)]
    responses = [WORDS[n + 1] for n in range(count)]
    return pa.table({"id": ids, "prompt": asked, "response": responses, **columns})


def sum_loss(network, tokenizer, prompt: str, response: str) -> float:
    first = [tokenizer.bos_token_id, *tokenizer(prompt)["input_ids"]]
    rest = [*tokenizer(response)["input_ids"], tokenizer.eos_token_id]
    with torch.no_grad():
        labels = torch.tensor([[-100] * len(first) + rest])
        return float(network(torch.tensor([first + rest]), labels=labels).loss) * len(rest)


def greedy(network, tokenizer, prompt: str, count: int) -> str:
    tokens = [tokenizer.bos_token_id, *tokenizer(prompt)["input_ids"]]
    start = len(tokens)
    for _ in range(count):
        with torch.no_grad():
            tokens.append(int(network(torch.tensor([tokens])).logits[0, -1].argmax()))
        if tokens[-1] == tokenizer.eos_token_id:
            break
    return tokenizer.decode(tokens[start:], skip_special_tokens=True)


def test_losses_choices_and_texts_are_those_of_plain_transformers(loaded):
    network, tokenizer = loaded
    asked = rows(12)
    found = respond(network, tokenizer, asked, Instructed(max_length_tokens=24, max_new_tokens=5))
    for row, answer in zip(asked.to_pylist(), found.to_pylist(), strict=True):
        prompt = row["prompt"]
        loss = sum_loss(network, tokenizer, prompt, row["response"])
        assert answer["loss"] == pytest.approx(loss, abs=1e-5)
        assert answer["tokens"] == 2
        assert answer["written"] == greedy(network, tokenizer, prompt, 5)
        if row["choices"] is None:
            assert answer["chosen"] is None
        else:
            losses = [sum_loss(network, tokenizer, prompt, choice) for choice in row["choices"]]
            assert answer["chosen"] == losses.index(min(losses))


def test_a_prompt_longer_than_the_model_keeps_its_end(loaded):
    network, tokenizer = loaded
    long = rows(2).set_column(1, "prompt", pa.array([" ".join(WORDS)] * 2))
    found = respond(network, tokenizer, long, Instructed(max_length_tokens=512, max_new_tokens=6))
    # 32 positions: the start token and 25 of the words leave room for six new tokens.
    kept = " ".join(WORDS[-24:])
    assert found["written"][0].as_py() == greedy(network, tokenizer, kept, 6)


def test_scores_of_texts_by_hand():
    written = ["The cat.", "a dog runs", "so 1,000 or #### 1,234", "nothing"]
    references = [["cat"], ["dog", "a big dog runs fast"], ["1234"], ["else"]]
    numbers = [False, False, True, False]
    table = pa.table({"written": written, "references": references, "number": numbers})
    scores = written_scores(table)
    assert scores["exact_match"] == pytest.approx(2 / 4)
    # Words without articles: 1 of 1; the best of 2·1/(2+1) and 2·2/(2+4); 1; 0.
    assert scores["token_f1"] == pytest.approx((1 + 2 / 3 + 1 + 0) / 4)
    # Longest common subsequences 1 of (2, 1), 3 of (3, 5), 0 and 0, as F-measures.
    assert scores["rouge_l"] == pytest.approx((2 / 3 + 2 * 3 / 8 + 0 + 0) / 4)


def test_the_headline_is_the_mean_over_tokens(loaded, tmp_path):
    network, tokenizer = loaded
    settings = Instructed(max_length_tokens=24, max_new_tokens=0)
    found = respond(network, tokenizer, rows(9), settings)
    pq.write_table(found, tmp_path / RESPONSES)
    results = settings.results({"responses": tmp_path}, None)
    losses, tokens = found["loss"].to_numpy(), found["tokens"].to_numpy()
    assert results.metrics["headline"] == pytest.approx(losses.sum() / tokens.sum())
    assert results.metrics["headline_name"] == "response_loss"
    assert "exact_match" not in results.metrics
    answered = found.filter(pa.compute.is_valid(found["chosen"]))
    right = sum(a == 1 for a in answered["chosen"].to_pylist())
    assert results.metrics["choice_accuracy"] == pytest.approx(right / 6)
    assert results.n_eval == 9
