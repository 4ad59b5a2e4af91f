from collections.abc import Callable

import numpy as np
import pytest
import torch


@pytest.fixture(scope="session")
def mixture() -> Callable[..., np.ndarray]:
    """Draw rows of an anisotropic mixture whose clusters are shared, not their shares."""

    def draw(rows: int, seed: int, width: int = 16, clusters: int = 12) -> np.ndarray:
        shared = np.random.default_rng(0)
        centers = shared.normal(size=(clusters, width))
        scales = 0.2 + 0.6 * shared.random((clusters, width))
        rng = np.random.default_rng(seed)
        label = rng.choice(clusters, rows, p=rng.dirichlet(np.full(clusters, 0.7)))
        x = centers[label] + scales[label] * rng.normal(size=(rows, width))
        return x.astype(np.float32)

    return draw


@pytest.fixture(autouse=True)
def one_thread():
    """Keep small problems from fighting over cores."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def transport_plan() -> Callable[..., torch.Tensor]:
    """``[n, m]`` ``P_ij = a_i b_j exp((f_i + g_j - C_ij) / eps)``."""

    def plan(cost, f, g, a, b, epsilon: float) -> torch.Tensor:
        return a[:, None] * b[None, :] * torch.exp((f[:, None] + g[None, :] - cost) / epsilon)

    return plan
