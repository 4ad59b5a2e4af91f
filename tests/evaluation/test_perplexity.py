import math

import numpy as np
import pyarrow as pa
import pytest
import torch

from gotd.evaluation import ranges
from gotd.evaluation.likelihood import Likelihood, load_for_scoring
from gotd.evaluation.perplexity import (
    PerplexitySettings,
    perplexities,
    perplexity_of,
    text_losses,
)

from .conftest import POSITIONS, plain_losses

TEXTS = ["the cat sat", "is the answer yes or no ?", "a", "zebra " * 40]


def as_rows(texts):
    return pa.table({"id": [f"text/{i}" for i in range(len(texts))], "text": list(texts)})


@pytest.fixture(scope="module")
def loaded(gpt_folder):
    return load_for_scoring(gpt_folder)


def test_cut_texts_give_what_plain_transformers_give_text_by_text(loaded):
    """The loss of `labels=`, a start token first, cut at the model's positions: `evaluate`'s."""
    network, tokenizer = loaded
    expected = []
    for text in TEXTS:
        ids = [tokenizer.bos_token_id, *tokenizer(text)["input_ids"]][:POSITIONS]
        with torch.inference_mode():
            loss = network(torch.tensor([ids]), labels=torch.tensor([ids])).loss
        expected.append(math.exp(loss.item()))
    settings = PerplexitySettings(long_texts="cut")
    found, losses = perplexity_of(network, tokenizer, as_rows(TEXTS), settings)
    assert found["mean_text_perplexity"] == pytest.approx(np.mean(expected), rel=1e-5)
    tokens = losses["tokens"].to_numpy()
    corpus = math.exp(np.average(np.log(expected), weights=tokens))
    assert found["corpus_perplexity"] == pytest.approx(corpus, rel=1e-5)
    assert found["tokens"] == tokens.sum()
    assert found["corpus_perplexity"] != pytest.approx(found["mean_text_perplexity"], rel=0.01)


@pytest.mark.parametrize(("window", "stride"), [(None, None), (20, 5), (20, 19), (7, 1)])
def test_windows_predict_every_token_once_with_the_promised_context(loaded, window, stride):
    network, tokenizer = loaded
    text = "the cat sat on the mat " * 12
    settings = PerplexitySettings(window_tokens=window, stride_tokens=stride)
    losses = text_losses(Likelihood(network), tokenizer, as_rows([text]), settings)
    row = [tokenizer.bos_token_id, *tokenizer(text)["input_ids"]]
    assert losses["tokens"][0].as_py() == len(row) - 1
    window = window or POSITIONS
    stride = stride or window // 2
    total, begin, seen = 0.0, 0, 1
    while seen < len(row):
        end = min(begin + window, len(row))
        total += plain_losses(network, row[begin:end])[seen - end :].sum()
        seen, begin = end, begin + stride
    assert losses["loss"][0].as_py() == pytest.approx(total, rel=1e-5)
    one_token = PerplexitySettings(window_tokens=1)
    for too_far in (PerplexitySettings(window_tokens=5, stride_tokens=5), one_token):
        with pytest.raises(ValueError, match="less than the window"):
            text_losses(Likelihood(network), tokenizer, as_rows([text]), too_far)


def test_a_text_without_tokens_is_named(loaded):
    with pytest.raises(ValueError, match="'text/1' has no token to predict"):
        text_losses(Likelihood(loaded[0]), loaded[1], as_rows(["a", ""]), PerplexitySettings())


def test_a_killed_run_goes_on_at_its_range(loaded, tmp_path, monkeypatch):
    monkeypatch.setattr(ranges, "ROWS_PER_RANGE", 3)
    network, tokenizer = loaded
    texts = as_rows([f"the cat sat {i}" for i in range(8)])
    whole, losses = perplexity_of(network, tokenizer, texts, PerplexitySettings(), tmp_path / "a")
    calls = []

    def dying(likelihood, rows, first):
        if len(calls) == 2:
            raise KeyboardInterrupt
        calls.append(len(rows))
        return original(likelihood, rows, first)

    original = Likelihood.losses
    monkeypatch.setattr(Likelihood, "losses", dying)
    with pytest.raises(KeyboardInterrupt):
        perplexity_of(network, tokenizer, texts, PerplexitySettings(), tmp_path / "b")
    assert len(list((tmp_path / "b").glob("*.parquet"))) == 2
    calls.clear()
    again, resumed = perplexity_of(network, tokenizer, texts, PerplexitySettings(), tmp_path / "b")
    assert calls == [2]  # the last range alone
    assert again == whole
    assert resumed.equals(losses)
    with pytest.raises(ValueError, match="other rows"):
        perplexity_of(network, tokenizer, texts.slice(1), PerplexitySettings(), tmp_path / "a")


def test_numbers_that_mean_nothing_are_refused():
    with pytest.raises(ValueError, match="no texts"):
        perplexities(pa.table({"id": pa.array([], pa.string()), "loss": [], "tokens": []}))
    with pytest.raises(ValueError, match="'b' is not finite"):
        perplexities(pa.table({"id": ["a", "b"], "loss": [1.0, math.nan], "tokens": [1, 1]}))
    with pytest.raises(ValueError, match="long_texts"):
        PerplexitySettings(long_texts="drop")
    with pytest.raises(ValueError, match="stride_tokens"):
        PerplexitySettings(stride_tokens=0)
