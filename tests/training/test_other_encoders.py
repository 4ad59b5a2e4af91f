"""RoBERTa and DistilBERT through both stages: no token types, other names, other heads."""

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import (
    AutoModelForMaskedLM,
    AutoModelForSequenceClassification,
    DistilBertConfig,
    PreTrainedTokenizerFast,
    RobertaConfig,
)

from gotd.training.classifier import FineTuneSettings, decide, fine_tune, predict
from gotd.training.data import tokenise
from gotd.training.heads import pad_with_content
from gotd.training.labels import LabelledTask
from gotd.training.language_model import pre_fine_tune
from gotd.training.masked_lm import MaskedLMSettings
from gotd.training.models import check_length, load_encoder, load_tokenizer, save_model
from gotd.training.randomness import TrainingSeeds

FAMILIES = {
    "distilbert": DistilBertConfig(
        vocab_size=65, dim=32, n_layers=1, n_heads=2, hidden_dim=64, max_position_embeddings=48
    ),
    "roberta": RobertaConfig(
        vocab_size=65,
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=49,
        pad_token_id=0,
    ),
}
SETTINGS = {"learning_rate": 3e-3, "global_batch_size": 16, "max_length_tokens": 48}


@pytest.fixture(scope="module", params=FAMILIES)
def base(request, tiny_base, tmp_path_factory):
    """A tiny model of the family, with the words of the tiny BERT and no token types."""
    folder = tmp_path_factory.mktemp(request.param)
    names = ("pad_token", "unk_token", "cls_token", "sep_token", "mask_token")
    known = load_tokenizer(tiny_base)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=known._tokenizer,
        model_input_names=["input_ids", "attention_mask"],
        **{name: getattr(known, name) for name in names},
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = AutoModelForMaskedLM.from_config(FAMILIES[request.param])
    save_model(network, tokenizer, folder)
    return folder


def run(base, rows, folder, **options):
    settings = FineTuneSettings(**SETTINGS | {"epochs": 12} | options)
    return fine_tune(
        base,
        LabelledTask(rows.slice(32), rows.slice(0, 32), 2, False, accuracy),
        settings,
        TrainingSeeds.derive(1),
        folder.parent / f"{folder.name}-work",
        folder,
    )


def accuracy(predictions, labels):
    return float((predictions == labels).mean())


@pytest.mark.parametrize("tuning", ["full", "lora"])
def test_warmed_up_model_is_fine_tuned_with_every_head(
    base, texts, labelled, paired, tmp_path, tuning
):
    warm_up = MaskedLMSettings(**SETTINGS, epochs=1, tuning=tuning)
    pre_fine_tune(base, texts, warm_up, TrainingSeeds.derive(3), tmp_path / "w", tmp_path / "warm")
    before, after = (load_file(f / "model.safetensors") for f in (base, tmp_path / "warm"))
    assert before.keys() == after.keys()
    assert any(not torch.equal(before[key], after[key]) for key in before)
    load_encoder(tmp_path / "warm")
    rate = {"full": 3e-3, "lora": 3e-2}[tuning]
    for head, rows in (("mean", labelled), ("pooler", labelled), ("siamese", paired)):
        where = tmp_path / head
        report = run(tmp_path / "warm", rows, where, head=head, tuning=tuning, learning_rate=rate)
        best = max(score for _, score in report["validation"])
        assert best > (0.5 if head == "siamese" else 0.85)
        truth = rows["label"].to_numpy()[:32]
        assert (predict(where, rows)[:32] == truth).mean() == pytest.approx(best)


def test_the_two_texts_of_a_pair_are_told_apart_without_token_types(base):
    tokenizer = load_tokenizer(base)
    rows = tokenise(tokenizer, ["w1 w2 fish", "w3"], ["w4", "w5 w6"], 48)
    part = pad_with_content(rows, np.array([0, 1]))
    first, second = part["content"] & ~part["second"], part["content"] & part["second"]
    ids = part["input_ids"]
    # Row 0 holds an unknown word, which counts as special and must not end its text.
    assert tokenizer.decode(ids[0][first[0]]) == "w1 w2"
    assert [tokenizer.decode(ids[i][second[i]]) for i in (0, 1)] == ["w4", "w5 w6"]
    assert "second" not in pad_with_content(tokenise(tokenizer, ["w1"], None, 48), np.array([0]))


def test_distilbert_classifier_is_a_standard_model(base, labelled, tmp_path):
    if "distilbert" not in base.name:
        pytest.skip("RoBERTa's own classifiers have another head")
    run(base, labelled, tmp_path / "out", head="pooler", epochs=1)
    standard, info = AutoModelForSequenceClassification.from_pretrained(
        tmp_path / "out", output_loading_info=True
    )
    assert not info["missing_keys"]
    inputs = load_tokenizer(tmp_path / "out")(
        labelled["text"].to_pylist(), return_tensors="pt", padding=True
    )
    with torch.no_grad():
        logits = standard.eval()(**inputs).logits.numpy()
    assert np.array_equal(decide(logits, False), predict(tmp_path / "out", labelled))


def test_positions_are_those_that_can_be_used(base):
    network, _ = load_encoder(base)
    check_length(network, 48)
    with pytest.raises(ValueError, match="knows only 48"):
        check_length(network, 49)
