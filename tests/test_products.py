"""Products of float32 matrices: exact whichever library computes them, with right gradients."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from gotd import products


@pytest.fixture(params=["onednn", "torch"], autouse=True)
def library(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Compute by each of the libraries, whatever this processor is."""
    if request.param == "onednn" and not hasattr(torch.ops.mkldnn, "_linear_pointwise"):
        pytest.skip("torch without oneDNN")
    monkeypatch.setattr(products, "prefers_onednn", lambda: request.param == "onednn")
    return request.param


def random(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(len(shape) + shape[0]))


@pytest.mark.parametrize("rows", [(1,), (7, 3), (1000,)], ids=str)
@pytest.mark.parametrize("with_bias", [False, True])
@pytest.mark.parametrize("transposed", [False, True])
def test_product_is_as_exact_as_float32(
    rows: tuple[int, ...], with_bias: bool, transposed: bool
) -> None:
    x = random(*rows, 384)
    weight = random(384, 50).T if transposed else random(50, 384)
    bias = random(50) if with_bias else None
    expected = x.double() @ weight.double().T + (0 if bias is None else bias.double())
    found = products.linear(x, weight, bias)
    assert found.dtype == torch.float32
    # The unit roundoff times the root of the length, with room for the largest of all entries.
    assert float((found - expected).abs().max()) < 6e-8 * 384**0.5 * 384**0.5 * 3


@pytest.mark.parametrize("shape", [(0, 4, 3), (5, 0, 3), (5, 4, 0)], ids=str)
def test_empty_operands(shape: tuple[int, int, int]) -> None:
    n, d, m = shape
    found = products.linear(random(n, d) if n else torch.zeros(0, d), torch.ones(m, d))
    assert torch.equal(found, torch.zeros(n, m))


def test_gradients_are_those_of_float64() -> None:
    x, weight, bias = random(3, 5, 12), random(8, 12), random(8)

    def gradients(dtype: torch.dtype) -> list[Tensor]:
        leaves = [tensor.to(dtype).clone().requires_grad_() for tensor in (x, weight, bias)]
        products.linear(*leaves).square().sum().backward()
        return [leaf.grad for leaf in leaves if leaf.grad is not None]

    for found, expected in zip(gradients(torch.float32), gradients(torch.float64), strict=True):
        torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-5)


def test_frozen_operands_get_no_gradient() -> None:
    x, weight = random(5, 12), random(8, 12).requires_grad_()
    products.linear(x, weight).sum().backward()
    assert x.grad is None
    assert weight.grad is not None


def test_frozen_weights_keep_no_input() -> None:
    kept: list[Tensor] = []

    def keep(tensor: Tensor) -> Tensor:
        kept.append(tensor)
        return tensor

    x, weight = random(5, 12).requires_grad_(), random(8, 12)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        products.linear(x, weight)
    assert {tensor.data_ptr() for tensor in kept} == {weight.data_ptr()}


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_other_types_are_torchs_own(dtype: torch.dtype) -> None:
    x, weight = random(5, 12).to(dtype), random(8, 12).to(dtype)
    assert torch.equal(products.linear(x, weight), nn.functional.linear(x, weight))


def test_autocast_is_obeyed() -> None:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert products.linear(random(5, 12), random(8, 12)).dtype == torch.bfloat16


def test_second_derivatives_are_refused_where_they_are_not_known(library: str) -> None:
    if library == "torch":
        pytest.skip("torch has them")
    x = random(5, 12).requires_grad_()
    (first,) = torch.autograd.grad(
        products.linear(x, random(8, 12)).square().sum(), x, create_graph=True
    )
    with pytest.raises(RuntimeError, match="once_differentiable"):
        first.sum().backward()
