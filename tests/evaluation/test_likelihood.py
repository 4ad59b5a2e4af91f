import numpy as np
import pytest
import torch

from gotd.evaluation.likelihood import Likelihood, load_for_scoring

from .conftest import POSITIONS, plain_losses

VOCABULARY = 257


@pytest.fixture(scope="module", params=["gpt_folder", "gpt_neo_folder"])
def network(request):
    return load_for_scoring(request.getfixturevalue(request.param))[0]


def draw(random, n):
    return random.integers(VOCABULARY, size=n).tolist()


@pytest.mark.parametrize("batch_tokens", [1, 150, 5000])
def test_losses_are_those_of_each_row_alone(network, batch_tokens):
    random = np.random.default_rng(0)
    rows = [draw(random, n) for n in [1, 2, POSITIONS, *random.integers(1, POSITIONS, size=20)]]
    first = [int(random.integers(1, len(row) + 1)) for row in rows]
    found = Likelihood(network, batch_tokens).losses(rows, first)
    for row, begin, losses in zip(rows, first, found, strict=True):
        np.testing.assert_allclose(losses, plain_losses(network, row)[begin - 1 :], atol=2e-5)


@pytest.mark.parametrize("tile", [1, 100, 256, 257])
def test_tiles_of_the_vocabulary_change_no_loss(network, tile, monkeypatch):
    random = np.random.default_rng(3)
    rows = [draw(random, 20), list(range(0, VOCABULARY, 16)), [VOCABULARY - 1] * 3]
    whole = Likelihood(network).losses(rows, [1] * 3)
    monkeypatch.setattr("gotd.evaluation.likelihood.HEAD_TILE", tile)
    for losses, expected in zip(Likelihood(network).losses(rows, [1] * 3), whole, strict=True):
        np.testing.assert_allclose(losses, expected, atol=2e-5)


@pytest.mark.parametrize("batch_tokens", [1, 150, 5000])
@pytest.mark.parametrize("whole", [True, False])
def test_shared_prefixes_change_no_number(network, batch_tokens, whole):
    random = np.random.default_rng(1)
    rows, first = [], []
    for shared in [0, 1, 1, 63, *random.integers(0, 60, size=20)]:
        prefix = draw(random, shared)
        tails = [draw(random, int(random.integers(1, POSITIONS - shared + 1))) for _ in range(3)]
        choices = [prefix + tail for tail in tails]
        if shared > 1:
            choices.append(prefix)  # a choice may add nothing
        rows.append(choices)
        first.append([1 if whole else max(1, shared)] * len(choices))
    found = Likelihood(network, batch_tokens).choice_losses(rows, first)
    for choices, begins, losses in zip(rows, first, found, strict=True):
        assert len(losses) == len(choices)
        for choice, begin, values in zip(choices, begins, losses, strict=True):
            expected = plain_losses(network, choice)[begin - 1 :]
            np.testing.assert_allclose(values, expected, atol=2e-5)


def test_a_batch_of_choices_keeps_its_limit(gpt_folder):
    """Only a row that is larger alone makes a batch of more tokens than allowed."""
    likelihood = Likelihood(load_for_scoring(gpt_folder)[0], 200)
    random = np.random.default_rng(4)
    shared = [int(n) for n in random.integers(1, 30, size=25)]
    prefixes = [draw(random, n) for n in shared]
    rows = [[prefix + draw(random, 4), prefix + draw(random, 7)] for prefix in prefixes]
    batches = list(likelihood._choice_batches(rows, shared))
    assert sorted(i for batch in batches for i in batch) == [*range(25)]
    assert 1 < len(batches) < 25
    for batch in batches:
        longest = max(shared[i] for i in batch)
        # Prefixes are padded to the longest; the two tails of each row repeat its prefix.
        assert len(batch) == 1 or len(batch) * longest + 2 * len(batch) * (longest + 6) <= 200


def test_equal_choices_of_the_most_tokens_are_read(network):
    row = draw(np.random.default_rng(2), POSITIONS + 1)  # the last one is only predicted
    found = Likelihood(network, 5000).choice_losses([[row, list(row)]], [[1, 1]])
    for values in found[0]:
        np.testing.assert_allclose(values, plain_losses(network, row), atol=2e-5)


def test_bf16_is_near_float32_and_padding_moves_it_no_farther(gpt_folder):
    exact, _ = load_for_scoring(gpt_folder)
    rounded, _ = load_for_scoring(gpt_folder, "bf16")
    assert next(rounded.parameters()).dtype is torch.bfloat16
    random = np.random.default_rng(2)
    rows = [[draw(random, 9)] * 2, [draw(random, 30)] * 2]
    rows = [[row[0] + [3, 4], row[1] + [5]] for row in rows]
    first = [[1, 1], [1, 1]]
    found = Likelihood(rounded).choice_losses(rows, first)
    truth = Likelihood(exact).choice_losses(rows, first)
    for losses, expected in zip(found, truth, strict=True):
        for values, wanted in zip(losses, expected, strict=True):
            np.testing.assert_allclose(values.mean(), wanted.mean(), rtol=0.02)


def test_what_cannot_be_scored_is_refused(network, gpt_folder, tmp_path):
    with pytest.raises(ValueError, match="nothing is before token 0"):
        Likelihood(network).losses([[1, 2]], [0])
    with pytest.raises(ValueError, match="reads 64 positions"):
        Likelihood(network).losses([[1] * (POSITIONS + 2)], [1])
    with pytest.raises(ValueError, match="precision"):
        load_for_scoring(gpt_folder, "fp8")
    odd = torch.nn.Module()
    odd.config = type("Config", (), {"model_type": "gemma2"})()
    with pytest.raises(ValueError, match="gemma2"):
        Likelihood(odd)


def test_missing_weights_are_refused(gpt_folder, tmp_path):
    from safetensors.torch import load_file, save_file

    for file in gpt_folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    state = load_file(tmp_path / "model.safetensors")
    del state["transformer.h.1.mlp.c_fc.weight"]
    save_file(state, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match=r"lacks 1 weights.*h\.1\.mlp"):
        load_for_scoring(tmp_path)
