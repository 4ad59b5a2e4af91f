"""Target loss: equal to plain transformers, with masks that do not depend on the model."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from transformers import AutoModelForMaskedLM, AutoTokenizer

from gotd.evaluation.metrics import metric
from gotd.evaluation.target_loss import (
    TargetLossSettings,
    mask_positions,
    mean_losses,
    target_losses,
)
from gotd.training.models import ModelSpec, build_model

WORDS = [f"word{number}" for number in range(50)]
POSITIONS = 24


@pytest.fixture(scope="module")
def masked_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Save a random BERT of 24 positions."""
    folder = tmp_path_factory.mktemp("masked")
    spec = ModelSpec(
        layers=2, hidden_size=16, heads=2, feed_forward_size=32, max_length_tokens=POSITIONS
    )
    build_model(spec, WORDS, 0, folder)
    return folder


@pytest.fixture(scope="module")
def texts() -> pa.Table:
    """Forty texts of 1 to 40 words: some are longer than the model's positions."""
    random = np.random.default_rng(0)
    rows = [" ".join(random.choice(WORDS, size)) for size in random.permutation(40) + 1]
    return pa.table({"id": [f"t{number}" for number in range(40)], "text": rows})


def plain_loss(folder: Path, name: str, text: str, settings: TargetLossSettings) -> list[float]:
    """Compute the losses of the masked tokens of one text by the library's own logits."""
    tokenizer, network = AutoTokenizer.from_pretrained(folder), None
    network = AutoModelForMaskedLM.from_pretrained(folder).eval()
    given = tokenizer(text, truncation=True, max_length=POSITIONS, return_tensors="pt")
    ids = given["input_ids"]
    free = np.flatnonzero(~np.isin(ids[0].numpy(), tokenizer.all_special_ids))
    losses = []
    for masked in mask_positions(name, free, settings, 7):
        changed = ids.clone()
        changed[0, masked] = tokenizer.mask_token_id
        with torch.no_grad():
            logits = network(input_ids=changed, attention_mask=given["attention_mask"]).logits
        chosen = torch.nn.functional.cross_entropy(
            logits[0, masked], ids[0, masked], reduction="none"
        )
        losses += chosen.tolist()
    return losses


@pytest.mark.parametrize("mask_sets", [1, 3])
def test_masked_losses_are_those_of_plain_transformers(masked_folder, texts, mask_sets):
    settings = TargetLossSettings(mask_sets=mask_sets)
    losses = target_losses(masked_folder, False, texts, settings, 7)
    assert losses["id"].to_pylist() == texts["id"].to_pylist()
    for row, text in zip(losses.to_pylist(), texts["text"].to_pylist(), strict=True):
        expected = plain_loss(masked_folder, row["id"], text, settings)
        assert row["tokens"] == len(expected)
        assert row["loss"] == pytest.approx(sum(expected), abs=1e-5 * len(expected))


def test_a_text_has_the_same_losses_in_any_batch_and_order(masked_folder, texts):
    settings = TargetLossSettings()
    whole = target_losses(masked_folder, False, texts, settings, 7)
    order = np.random.default_rng(1).permutation(texts.num_rows)
    shuffled = target_losses(masked_folder, False, texts.take(order), settings, 7)
    expected = whole.take(order)
    np.testing.assert_allclose(shuffled["loss"], expected["loss"], atol=1e-4)
    assert shuffled["tokens"] == expected["tokens"]


@pytest.mark.parametrize("size", [1, 2, 7, 20, 100])
@pytest.mark.parametrize("mask_sets", [1, 2, 6])
def test_masks_are_disjoint_and_depend_on_seed_and_id_only(size, mask_sets):
    settings, free = TargetLossSettings(mask_sets=mask_sets), np.arange(3, 3 + size)
    sets = mask_positions("a", free, settings, 0)
    chosen = np.concatenate(sets)
    assert len(np.unique(chosen)) == len(chosen)
    assert np.isin(chosen, free).all()
    count = max(1, round(0.15 * size))
    assert all(len(positions) == count for positions in sets[:-1])
    assert len(chosen) == min(size, mask_sets * count)
    again = mask_positions("a", free, settings, 0)
    assert all(np.array_equal(a, b) for a, b in zip(sets, again, strict=True))
    if size == 100:
        for other in (
            mask_positions("b", free, settings, 0),
            mask_positions("a", free, settings, 1),
        ):
            assert not np.array_equal(other[0], sets[0])


def test_a_text_without_a_token_to_mask_counts_for_nothing(masked_folder):
    rows = pa.table({"id": ["a", "b"], "text": ["word1 word2", "☃"]})
    losses = target_losses(masked_folder, False, rows, TargetLossSettings(), 0)
    assert losses["tokens"].to_pylist() == [1, 0]
    assert losses["loss"].to_pylist()[1] == 0


def test_means_weigh_tokens_and_name_their_part():
    columns = {
        "id": ["a", "b", "c"],
        "loss": [3.0, 1.0, 9.0],
        "tokens": [1, 3, 0],
        "part": pa.array(["x", "y", None]),
    }
    losses = pa.table({**columns, "loss": [3.0, 1.0, 0.0]})
    means = mean_losses(losses, "target_loss")
    assert means == {
        "target_loss": 1.0,
        "target_loss/x": 3.0,
        "target_loss/y": pytest.approx(1 / 3),
    }
    assert all(not metric(name).higher_is_better for name in means)
    broken = pa.table({**columns, "loss": [3.0, float("nan"), 0.0]})
    with pytest.raises(ValueError, match="text 'b' is not finite"):
        mean_losses(broken, "target_loss")


def test_a_model_without_a_head_has_no_loss(bert_without_head, texts):
    losses = target_losses(bert_without_head, False, texts, TargetLossSettings(), 0)
    assert losses.num_rows == 0
    with_part = losses.append_column("part", pa.array([], pa.string()))
    assert mean_losses(with_part, "target_loss") == {"target_loss": None}


@pytest.fixture(scope="module")
def bert_without_head(masked_folder, tmp_path_factory) -> Path:
    """Save the encoder alone, as sentence encoders are."""
    from transformers import AutoModel

    folder = tmp_path_factory.mktemp("encoder")
    AutoModel.from_pretrained(masked_folder).save_pretrained(folder)
    AutoTokenizer.from_pretrained(masked_folder).save_pretrained(folder)
    return folder


@pytest.mark.parametrize(
    "change",
    [{"texts": 0}, {"mask_sets": 0}, {"mask_probability": 1.0}, {"mask_sets": 7}],
)
def test_settings_that_cannot_be_are_refused(change):
    with pytest.raises(ValueError, match="target_loss"):
        TargetLossSettings(**change)


@pytest.mark.parametrize("folder", ["gpt_folder", "gpt_neo_folder"])
def test_causal_losses_are_those_of_plain_transformers(folder, request):
    from transformers import AutoModelForCausalLM

    path = request.getfixturevalue(folder)
    tokenizer = AutoTokenizer.from_pretrained(path)
    network = AutoModelForCausalLM.from_pretrained(path).eval()
    rows = pa.table({"id": ["a", "b"], "text": ["w1 w2 w3", "w9 w8 w7 w6 w5 w4"]})
    losses = target_losses(path, True, rows, TargetLossSettings(), 0)
    for row, text in zip(losses.to_pylist(), rows["text"].to_pylist(), strict=True):
        ids = torch.tensor([[tokenizer.bos_token_id, *tokenizer(text)["input_ids"]]])
        with torch.no_grad():
            logits = network(ids).logits[0, :-1]
        expected = torch.nn.functional.cross_entropy(logits, ids[0, 1:], reduction="sum")
        assert row["tokens"] == ids.shape[1] - 1
        assert row["loss"] == pytest.approx(float(expected), abs=1e-5 * ids.shape[1])
