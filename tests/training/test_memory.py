"""Estimates against what torch says: weights of real shapes, tensors that a layer saves."""

from dataclasses import replace

import pytest
import torch
from peft import LoraConfig, get_peft_model
from tests.support.networks import FAMILIES, network
from transformers import DistilBertConfig

from gotd.storage.shapes import BERT_BASE, PUBLISHED, Shape, named_shape
from gotd.training.dropout import use_fast_dropout
from gotd.training.layers import use_fast_layers
from gotd.training.memory import (
    Training,
    activations,
    adapter_weights,
    scoring_memory,
    training_memory,
    ways,
)

ROWS, LENGTH = 2, 16
SMALL = Shape(layers=2, hidden=64, heads=4, feed_forward=256, vocabulary=100, positions=32)


def fast_network(family, shape, dropout, dtype=torch.float32):
    """Return a network as it is trained."""
    model = network(family, shape, dropout, dtype)
    use_fast_layers(model)
    use_fast_dropout(model)
    return model


def saved_bytes(model):
    """Count what autograd keeps of a forward pass, each storage once, weights left out."""
    own = {t.untyped_storage().data_ptr() for t in (*model.parameters(), *model.buffers())}
    seen = {}

    def keep(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            seen[storage.data_ptr()] = (storage.nbytes(), tensor)
        return tensor

    tokens = torch.zeros((ROWS, LENGTH), dtype=torch.long)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda t: t):
        model.train().base_model(input_ids=tokens, attention_mask=torch.ones_like(tokens))
    return sum(size for size, _ in seen.values())


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("tuning", ["full", "lora"])
@pytest.mark.parametrize("dropout", [0.1, 0.0])
@pytest.mark.parametrize("weights", ["float32", "bf16"])
def test_a_layer_saves_what_autograd_says(family, tuning, dropout, weights):
    dtype = torch.bfloat16 if weights == "bf16" else torch.float32
    counts = []
    for layers in (2, 4):  # the difference leaves out what embeddings and the last norm save
        shape = Shape(layers, SMALL.hidden, SMALL.heads, SMALL.feed_forward, 100, 32)
        model = fast_network(family, shape, dropout, dtype)
        if tuning == "lora":
            get_peft_model(model, LoraConfig(r=2))
        counts.append(saved_bytes(model))
    measured = (counts[1] - counts[0]) / 2
    how = Training(ROWS, LENGTH, tuning=tuning, weights=weights, dropout=dropout > 0)
    # Low ranks and tiny sizes: norms' statistics and adapters weigh more than they will.
    assert activations(replace(SMALL, family=family), how) == pytest.approx(measured, rel=0.08)


@pytest.mark.parametrize(
    ("name", "family"),
    [
        ("gpt2", "gpt2"),
        ("gpt2-xl", "gpt2"),
        ("gpt-neo-1.3B", "gpt_neo"),
        ("gpt-neo-2.7B", "gpt_neo"),
    ],
)
def test_published_shapes_have_the_published_number_of_weights(name, family):
    with torch.device("meta"):
        model = network(family, PUBLISHED[name], 0.0)
    counted = sum(weight.numel() for weight in model.parameters())
    assert PUBLISHED[name].weights == pytest.approx(counted, rel=0.01)
    get_peft_model(model, LoraConfig(r=8))
    trained = sum(w.numel() for w in model.parameters() if w.requires_grad)
    assert PUBLISHED[name].family == family
    assert adapter_weights(PUBLISHED[name], Training(1, 1)) == trained


def test_each_saving_saves():
    shape = PUBLISHED["gpt2-xl"]
    gib = {way: training_memory(shape, how).gib for way, how in ways(Training(4, 1024))}
    assert gib["full"] > gib["full, recomputed"] > gib["full, recomputed, fsdp on 8"]
    assert gib["full"] > gib["lora"] > gib["lora, recomputed"]
    assert gib["lora, recomputed"] > gib["lora, recomputed, bf16 weights"]
    # A weight and AdamW's two moments are there at any time, whatever the batch.
    assert gib["full, recomputed"] > 12 * shape.weights / 2**30
    one, two = (training_memory(shape, Training(rows, 1024)) for rows in (1, 2))
    assert two.activations == pytest.approx(2 * one.activations)
    assert two.logits == pytest.approx(12 * 2 * 1024 * 50_257)
    masked = training_memory(BERT_BASE, Training(64, 128, predicted=0.15))
    assert masked.logits < 0.2 * training_memory(BERT_BASE, Training(64, 128)).logits


@pytest.mark.parametrize("family", FAMILIES)
def test_additions_are_counted_as_peft_makes_them(family):
    shape = replace(SMALL, family=family)
    with torch.device("meta"):
        model = get_peft_model(network(family, shape, 0.0), LoraConfig(r=4))
    added = sum(w.numel() for w in model.parameters() if w.requires_grad)
    assert adapter_weights(shape, Training(1, 1, lora_rank=4)) == added


@pytest.mark.parametrize(
    ("options", "number"),
    [
        ({}, 4),
        ({"weights": "bf16"}, 2),
        ({"devices": 4, "strategy": "fsdp"}, 1),
        ({"devices": 4, "strategy": "ddp"}, 4),
    ],
)
def test_a_small_batch_has_its_peak_where_all_gradients_are(options, number):
    """Every weight has a gradient of its own type and AdamW's two moments of that type."""
    shape = PUBLISHED["gpt2-xl"]
    memory = training_memory(
        shape, Training(1, 8, stored=options.get("weights", "float32"), **options)
    )
    assert memory.gradients == number * shape.weights
    assert memory.moments == 2 * number * shape.weights
    assert memory.weights == number * shape.weights
    assert memory.activations == memory.logits == 0.0


def test_scoring_halves_in_bf16_and_grows_with_the_batch():
    shape = PUBLISHED["gpt-neo-2.7B"]
    wide, narrow = (scoring_memory(shape, p, 4096, 512) for p in ("float32", "bf16"))
    assert narrow.file == 4 * shape.weights  # converted from float32: the peak is there
    narrow = scoring_memory(shape, "bf16", 4096, 512, stored="bf16")
    assert (narrow.file, narrow.weights) == (0.0, wide.weights / 2)
    assert scoring_memory(shape, "bf16", 8192, 512, "bf16").cache == 2 * narrow.cache
    assert narrow.gib < 24


def test_a_shape_is_read_from_a_local_configuration(tmp_path):
    for family in FAMILIES:
        network(family, SMALL, 0.0).config.save_pretrained(tmp_path / family)
        assert named_shape(str(tmp_path / family)) == replace(SMALL, family=family)
    config = DistilBertConfig(n_layers=3, dim=96, n_heads=3, hidden_dim=200, vocab_size=50)
    config.save_pretrained(tmp_path / "distilbert")
    assert named_shape(str(tmp_path / "distilbert")) == Shape(3, 96, 3, 200, 50)


def test_a_model_that_is_not_here_has_its_published_shape():
    assert named_shape("nowhere/gpt2-xl") == PUBLISHED["gpt2-xl"]
    assert named_shape("nowhere/unknown") == BERT_BASE
