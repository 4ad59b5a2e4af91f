"""Candidates as a stream of blocks: what is computed where, and in which precision.

A block of rows is read, mapped, multiplied with the targets and reduced to one number
per row and one per target; the ``n x m`` costs never exist. Blocks are independent, so
a ``map`` that runs them in parallel changes nothing but the time.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from gotd.transport.cost import Moments, mean_cost, squared_norms
from gotd.transport.problem import Problem

Precision = Literal["float32", "bfloat16", "float64"]
BlockMap = Callable[[Callable[[Any], Any], Iterable[Any]], Iterable[Any]]

# On a CPU a block of logits should stay near the cache: 2**20 floats are 4 MiB. Blocks
# under about a thousand rows lose up to 8x when threads contend for busy cores.
CPU_BLOCK_ENTRIES, CPU_LEAST_ROWS, CPU_MOST_ROWS = 2**20, 1024, 4096


@dataclass(frozen=True)
class Compute:
    """How blocks are computed; never what is computed.

    Args:
        precision: Of the matrix product. ``bfloat16`` rounds its inputs (and on a CPU
            its output) and keeps everything after it in float32: twice the speed,
            top-1 % overlap about 0.99. ``float64`` for small problems and tests.
        device: ``auto`` (CUDA if there is one), ``cpu``, ``cuda``, ``cuda:1`` ...
        block_rows: Rows per block; chosen from the free memory when ``None``.
        map_blocks: Applies a function to blocks and yields results in order, such as
            an engine's ``map``.
    """

    precision: Precision = "float32"
    device: str = "auto"
    block_rows: int | None = None
    map_blocks: BlockMap = map

    def __post_init__(self) -> None:
        if self.precision not in ("float32", "bfloat16", "float64"):
            raise ValueError(
                f"precision must be float32, bfloat16 or float64, not {self.precision!r}"
            )
        if self.block_rows is not None and self.block_rows < 1:
            raise ValueError(f"block_rows must be at least 1, not {self.block_rows}")

    @property
    def dtype(self) -> torch.dtype:
        """The type of everything but bfloat16 matrix operands."""
        return torch.float64 if self.precision == "float64" else torch.float32

    def resolve_device(self) -> torch.device:
        """Name the device that ``auto`` stands for here."""
        if self.device == "auto":
            return torch.device("cuda" if torch.cuda.is_available() else "cpu")
        return torch.device(self.device)


@contextlib.contextmanager
def full_float32() -> Iterator[None]:
    """Keep float32 products in float32 for a while.

    Training may have allowed TF32 or bfloat16 inside float32 products; logits are
    ``2 / epsilon`` times an inner product, where ten bits of mantissa are too few.
    """
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def smallest_weight(dtype: torch.dtype) -> float:
    """Return the weight under which a term of a sum of exponentials is dropped.

    Far below anything that could be seen in the sum, yet far enough above the smallest
    normal number that products with it stay normal: subnormal numbers make a CPU's
    matrix-vector products ten times slower (measured at epsilon = 0.01).
    """
    return torch.finfo(dtype).tiny * 1e10


@dataclass(frozen=True)
class Block:
    """Rows ``start:stop`` of candidate array number ``array``."""

    array: int
    start: int
    stop: int


class Stream:
    """A problem laid out on a device: the targets resident, the candidates in blocks.

    Both sides are shifted by the target's mean. Distances do not notice; float32 and
    bfloat16 do, because embeddings share a large common vector.

    Args:
        problem: The transport problem.
        compute: Precision, device, block size and map.
    """

    def __init__(self, problem: Problem, compute: Compute) -> None:
        self.problem, self.compute = problem, compute
        self.device, self.dtype = compute.resolve_device(), compute.dtype
        y = torch.as_tensor(np.array(problem.target, dtype=np.float64), device=self.device)
        y = problem.geometry.embed(y)
        self.center = y.mean(dim=0).to(self.dtype)
        self.target = (y - y.mean(dim=0)).to(self.dtype)
        self.target_squared = squared_norms(self.target)
        self.b = torch.as_tensor(problem.b, device=self.device)
        self.blocks = _cut([len(x) for x in problem.candidates], self._block_rows())

    def _block_rows(self) -> int:
        if self.compute.block_rows is not None:
            return self.compute.block_rows
        if self.device.type == "cuda":
            free, _ = torch.cuda.mem_get_info(self.device)
            # Logits, their exponentials and a temporary, for a few blocks in flight.
            rows = free // (8 * 3 * self.target.element_size() * self.problem.n_target)
            return int(min(max(rows, 256), 65_536))
        rows = CPU_BLOCK_ENTRIES // self.problem.n_target
        return min(max(rows, CPU_LEAST_ROWS), CPU_MOST_ROWS)

    def load(self, rows: np.ndarray) -> Tensor:
        """Copy ``[n, d]`` rows to the device, mapped and shifted."""
        # Into torch's memory: a read-only memory map cannot back a tensor, and a fresh
        # NumPy array per block costs three times as much in page faults.
        x = torch.empty(rows.shape, dtype=self.dtype)
        np.copyto(x.numpy(), rows)
        return self.problem.geometry.embed(x.to(self.device)).sub_(self.center)

    def load_block(self, block: Block) -> tuple[Tensor, Tensor]:
        """Return a block's ``[n, d]`` rows and ``[n]`` float64 masses."""
        rows = self.load(self.problem.candidates[block.array][block.start : block.stop])
        # A copy, because equal masses are one read-only number.
        mass = torch.from_numpy(np.array(self.problem.a[block.array][block.start : block.stop]))
        return rows, mass.to(self.device)

    def map(self, function: Callable[[Block], Any]) -> Iterator[tuple[Block, Any]]:
        """Apply ``function`` to every block; yield each block with its result, in order.

        Results are put in their place by the caller, not by ``function``: a map may
        run it in processes that see no more than a copy of an array.
        """
        return zip(self.blocks, self.compute.map_blocks(function, self.blocks), strict=True)

    def mean_cost(self) -> float:
        """Average the cost over all pairs in one cheap pass, without products."""
        sums = Moments()
        for _, moments in self.map(lambda block: Moments.of(*self.load_block(block))):
            sums = sums + moments
        # Equal points may come out a rounding error below zero.
        return max(0.0, mean_cost(sums, Moments.of(self.target, self.b)))

    def outputs(self, out: Sequence[np.ndarray] | None) -> tuple[np.ndarray, ...]:
        """Return arrays for one float64 per candidate: the given ones, or new ones.

        Raises:
            ValueError: If the given ones do not fit the candidates.
        """
        lengths = [len(x) for x in self.problem.candidates]
        if out is None:
            return tuple(np.empty(length) for length in lengths)
        if [array.shape for array in out] != [(length,) for length in lengths] or any(
            array.dtype != np.float64 for array in out
        ):
            raise ValueError("out must hold one float64 array [n_k] per candidate array")
        return tuple(out)


class Logits:
    """The one matrix product: ``-C_ij / eps`` up to a constant per row.

    ``-C_ij / eps = 2/eps <x_i, y_j> - |y_j|^2 / eps - |x_i|^2 / eps``; the last term is
    left out because it cancels in every row-wise softmax.

    Args:
        stream: Where the targets live.
        epsilon: Absolute epsilon.
    """

    def __init__(self, stream: Stream, epsilon: float) -> None:
        self.reduced = stream.compute.precision == "bfloat16"
        self.weight = (stream.target * (2.0 / epsilon)).T.contiguous()
        self.offset = -stream.target_squared.double() / epsilon
        self.dtype = stream.dtype
        if self.reduced:
            self.reduced_weight = self.weight.bfloat16()

    def __call__(self, x: Tensor, gamma: Tensor | None = None, exact: bool = False) -> Tensor:
        """Multiply ``[n, d]`` rows into ``[n, m]`` logits.

        Args:
            x: Mapped, shifted rows.
            gamma: ``[m]`` float64 ``g / eps + log b``, added to every row.
            exact: Ignore a reduced precision.
        """
        bias = (self.offset if gamma is None else self.offset + gamma).to(self.dtype)
        if not self.reduced or exact:
            return torch.addmm(bias, x, self.weight)
        if x.is_cuda:
            # Logits reach hundreds: rounding the *output* to 8 bits would err by tenths.
            z = torch.mm(x.bfloat16(), self.reduced_weight, out_dtype=torch.float32)
        else:
            z = torch.mm(x.bfloat16(), self.reduced_weight).float()
        return z.add_(bias)


def _cut(lengths: Sequence[int], rows: int) -> list[Block]:
    return [
        Block(array, start, min(start + rows, length))
        for array, length in enumerate(lengths)
        for start in range(0, length, rows)
    ]
