"""Gradient features against plain autograd."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from tokenizers.processors import TemplateProcessing

from gotd.training.causal_models import CausalSpec
from gotd.training.gradients import RATE, WARM_UP, GradientEmbedder, warm_up
from gotd.training.models import build_model


@pytest.fixture(scope="module")
def causal_base(tmp_path_factory, words) -> Path:
    folder = tmp_path_factory.mktemp("causal")
    sizes = {"layers": 2, "hidden_size": 32, "heads": 2, "feed_forward_size": 64, "dropout": 0.0}
    build_model(CausalSpec(tokenizer="word_level", max_length_tokens=48, **sizes), words, 1, folder)
    return folder


@pytest.fixture(scope="module")
def words() -> list[str]:
    return [f"w{i}" for i in range(60)]


@pytest.fixture(params=["masked", "causal"])
def base(request) -> Path:
    return request.getfixturevalue({"masked": "calm_base", "causal": "causal_base"}[request.param])


@pytest.fixture
def warmed(base, texts, tmp_path) -> GradientEmbedder:
    warm_up(base, texts[:20], GradientEmbedder(base, 64, 40, 0), tmp_path / "warm")
    return GradientEmbedder(tmp_path / "warm", 1 << 16, 40, 0)


def plain(embedder: GradientEmbedder, text: str) -> dict[str, np.ndarray]:
    """The gradient of the loss that transformers computes, of one text alone."""
    tokens, labels = (torch.tensor([part]) for part in embedder.inputs(text))
    loss = embedder.network(input_ids=tokens, labels=labels).loss
    found = torch.autograd.grad(loss, list(embedder.weights.values()))
    return {name: g.numpy() for name, g in zip(embedder.weights, found, strict=True)}


def test_a_gradient_is_that_of_plain_autograd(warmed, texts):
    for text in texts[:4]:
        expected, found = plain(warmed, text), warmed.gradients(text)
        assert found.keys() == expected.keys()
        assert any(np.abs(gradient).max() > 1e-4 for gradient in expected.values())
        for name, gradient in expected.items():
            np.testing.assert_allclose(found[name], gradient, atol=2e-6)


def test_features_have_the_cosines_of_preconditioned_gradients(warmed, texts):
    def preconditioned(text: str) -> np.ndarray:
        scales = {name: scale.numpy() for name, scale in warmed.scale.items()}
        return np.concatenate([(g * scales[n]).ravel() for n, g in plain(warmed, text).items()])

    full = np.stack([preconditioned(text) for text in texts[:12]])
    full /= np.linalg.norm(full, axis=1, keepdims=True)
    features = warmed.embed(texts[:12])
    np.testing.assert_allclose(np.linalg.norm(features, axis=1), 1.0, atol=1e-5)
    # The projection is random: with as many columns as weights it is nearly exact.
    np.testing.assert_allclose(features @ features.T, full @ full.T, atol=0.05)


def test_a_batch_does_not_change_a_feature(warmed, texts):
    alone = np.vstack([warmed.embed([text]) for text in texts[:8]])
    np.testing.assert_allclose(warmed.embed(texts[:8]), alone, atol=2e-4)
    assert not warmed.embed([""]).any()


def test_a_start_token_stands_once_before_a_causal_text(causal_base):
    """Also where the tokenizer adds one itself, as Llama's does."""
    embedder = GradientEmbedder(causal_base, 64, 6, 0)
    tokenizer = embedder.tokenizer
    start, others = tokenizer.bos_token_id, tokenizer.convert_tokens_to_ids(["w1", "w2", "w3"])
    named = [(tokenizer.bos_token, start)]
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single=f"{tokenizer.bos_token} $A", special_tokens=named
    )
    assert tokenizer("w1 w2 w3")["input_ids"] == [start, *others]
    assert embedder.inputs("w1 w2 w3") == ([start, *others], [-100, *others])
    assert len(embedder.inputs("w1 w2 w3 " * 4)[0]) == 6


def test_the_warm_up_is_adam(base, texts, tmp_path):
    first = GradientEmbedder(base, 64, 40, 0)
    name, gradients = next(iter(first.weights)).replace("lora_A", "lora_B"), {}
    some = texts[:10]
    mean = np.mean([plain(first, text)[name] for text in some], axis=0)
    gradients[name] = mean
    warm_up(base, some, GradientEmbedder(base, 64, 40, 0), tmp_path / "warm")
    after = GradientEmbedder(tmp_path / "warm", 64, 40, 0)
    assert (tmp_path / "warm" / WARM_UP).is_file()
    # One step of Adam moves every number by its rate, against the sign of the gradient.
    moved = after.weights[name].detach().numpy() - first.weights[name].detach().numpy()
    large = np.abs(mean) > 1e-6
    np.testing.assert_allclose(moved[large], -RATE * np.sign(mean[large]), rtol=0.02)
    scale = after.scale[name].numpy()
    np.testing.assert_allclose(scale[large], np.abs(mean[large]) ** -0.5, rtol=0.02)


def test_without_a_warm_up_the_first_matrices_depend_on_the_seed_alone(base, texts):
    one, same, other = (GradientEmbedder(base, 64, 40, seed).embed(texts[:3]) for seed in (0, 0, 1))
    np.testing.assert_array_equal(one, same)
    assert not np.allclose(one, other)


def test_threads_do_not_mix_their_gradients(base, texts):
    embedder = GradientEmbedder(base, 64, 40, 0)
    parts = [texts[i : i + 6] for i in range(0, 24, 6)] * 3
    expected = [embedder.embed(part) for part in parts]
    with ThreadPoolExecutor(4) as pool:
        for found, alone in zip(pool.map(embedder.embed, parts), expected, strict=True):
            np.testing.assert_allclose(found, alone, atol=1e-6)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_features_of_a_gpu_are_those_of_the_processor(base, texts, tmp_path):
    embedder = GradientEmbedder(base, 64, 40, 0, device="cuda")
    assert {weight.device.type for weight in embedder.weights.values()} == {"cuda"}
    expected = GradientEmbedder(base, 64, 40, 0, device="cpu").embed(texts[:20])
    np.testing.assert_allclose(embedder.embed(texts[:20]), expected, atol=1e-4)
    warm_up(base, texts[:20], embedder, tmp_path / "warm")
    assert GradientEmbedder(tmp_path / "warm", 64, 40, 0, device="cuda").embed(texts[:2]).any()
