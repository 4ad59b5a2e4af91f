"""Candidates as a stream of blocks, with their device and precision.

A block of rows is read, mapped, multiplied with the targets, and reduced to one number per
row and one per target. The ``n x m`` cost matrix is never formed. Blocks are independent, so
a parallel ``map`` gives the same result.
"""

from __future__ import annotations

import contextlib
import dataclasses
import operator
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from gotd.products import linear
from gotd.transport import tree
from gotd.transport.cost import Moments, mean_cost, squared_norms
from gotd.transport.problem import Problem

Precision = Literal["float32", "bfloat16", "float64"]
BlockMap = Callable[[Callable[[Any], Any], Iterable[Any]], Iterable[Any]]

# On a CPU a block of logits should fit in the cache: 2**20 floats are 4 MiB. Blocks of
# less than about a thousand rows are up to 8x slower when threads compete for cores.
CPU_BLOCK_ENTRIES, CPU_LEAST_ROWS, CPU_MOST_ROWS = 2**20, 1024, 4096

# Share of a GPU's free memory in which candidates stay between passes. The rest is for blocks in
# flight and for a plan that is stored.
RESIDENT_SHARE = 0.5


@dataclass(frozen=True)
class Compute:
    """Settings of how blocks are computed, which do not change what is computed.

    Args:
        precision: Lowest precision of the matrix product. ``bfloat16`` rounds its inputs (and
            on a CPU its output); everything else is float32. It is twice as fast, with a
            top-1 % overlap of about 0.99. A solver uses it only for passes far from the
            solution, and higher ones for what it reports, see `gotd.transport.passes`.
            ``float64`` is for small problems and tests.
        device: ``auto`` (CUDA if there is one), ``cpu``, ``cuda``, ``cuda:1`` ...
        block_rows: Rows per block; chosen from the free memory when ``None``.
        map_blocks: Applies a function to blocks and yields the results in order, such as
            the ``map`` of an engine.
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
        """Return the type of all numbers but the operands of a bfloat16 product."""
        return torch.float64 if self.precision == "float64" else torch.float32

    def resolve_device(self) -> torch.device:
        """Return the device, with ``auto`` resolved on this machine."""
        if self.device == "auto":
            return torch.device("cuda" if torch.cuda.is_available() else "cpu")
        return torch.device(self.device)


@contextlib.contextmanager
def full_float32() -> Iterator[None]:
    """Compute float32 products in full precision while the context is open.

    Training may have allowed TF32 or bfloat16 inside float32 products. Logits are
    ``2 / epsilon`` times an inner product, for which ten bits of mantissa are too few.
    """
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def free_bytes(device: torch.device) -> int:
    """Return the free memory of a GPU; 0 of a CPU, where rows are in memory or a file already."""
    return torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else 0


def smallest_weight(dtype: torch.dtype) -> float:
    """Return the weight below which a term of a sum of exponentials is dropped.

    Such a term does not change the sum. Products with the weight are still normal numbers:
    subnormal ones make a CPU's matrix-vector products ten times slower (measured at
    epsilon = 0.01).
    """
    return torch.finfo(dtype).tiny * 1e10


@dataclass(frozen=True)
class Block:
    """Rows ``start:stop`` of candidate array number ``array``."""

    array: int
    start: int
    stop: int


class Resident:
    """Mapped candidates that stay on the device between passes, as many blocks as fit.

    A copy in another process keeps none, because it ends with the block that it was made for.

    Args:
        room: Bytes that may be kept.
    """

    def __init__(self, room: int = 0) -> None:
        self.room = room
        self._kept: dict[Block, tuple[Tensor, Tensor]] = {}
        self._lock = threading.Lock()

    def __reduce__(self) -> tuple[type[Resident], tuple[()]]:
        return Resident, ()

    def get(self, block: Block) -> tuple[Tensor, Tensor] | None:
        """Return the rows and masses of a block that is kept."""
        return self._kept.get(block)

    def offer(self, block: Block, rows: Tensor, mass: Tensor) -> None:
        """Store the rows and masses of a block if there is room for them."""
        size = rows.nbytes + mass.nbytes
        with self._lock:
            if size <= self.room and block not in self._kept:
                self.room -= size
                self._kept[block] = rows, mass


class Stream:
    """A problem on a device: all targets in memory, the candidates in blocks.

    Both sides are shifted by the target's mean. This does not change distances, but it
    reduces rounding errors, because embeddings share a large common vector.

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
        self.resident = Resident()
        rows = self._block_rows()
        self.blocks = [
            Block(array, start, min(start + rows, len(x)))
            for array, x in enumerate(problem.candidates)
            for start in range(0, len(x), rows)
        ]

    def _block_rows(self) -> int:
        if self.compute.block_rows is not None:
            return self.compute.block_rows
        if self.device.type == "cuda":
            # Logits, their exponentials and a temporary, for a few blocks in flight.
            rows = free_bytes(self.device) // (
                8 * 3 * self.target.element_size() * self.problem.n_target
            )
            return int(min(max(rows, 256), 65_536))
        rows = CPU_BLOCK_ENTRIES // self.problem.n_target
        return min(max(rows, CPU_LEAST_ROWS), CPU_MOST_ROWS)

    def keep_blocks(self, reserve: int = 0) -> None:
        """Store mapped candidates on the device from now on, where they fit.

        For solves of several passes. They read rows that are kept; the others are copied in
        every pass.

        Args:
            reserve: Bytes of the device's free memory that will be needed for something else.
        """
        self.resident = Resident(int(RESIDENT_SHARE * max(0, free_bytes(self.device) - reserve)))

    def with_precision(self, precision: Precision) -> Stream:
        """Return a stream of another precision; it shares blocks where numbers have one type."""
        other = Stream(self.problem, dataclasses.replace(self.compute, precision=precision))
        if other.dtype == self.dtype:
            other.blocks, other.resident = self.blocks, self.resident
        return other

    def load(self, rows: np.ndarray) -> Tensor:
        """Copy ``[n, d]`` rows to the device, mapped and shifted."""
        return self.problem.geometry.embed(self._copy(rows, self.dtype)).sub_(self.center)

    def load_block(self, block: Block) -> tuple[Tensor, Tensor]:
        """Return a block's ``[n, d]`` rows and ``[n]`` float64 masses, which stay as they are."""
        kept = self.resident.get(block)
        if kept is not None:
            return kept
        rows = self.load(self.problem.candidates[block.array][block.start : block.stop])
        a = self.problem.a[block.array][block.start : block.stop]
        if self.problem.candidate_mass is None:
            # Equal masses are one number, of which nothing needs to be copied.
            mass = torch.full((len(a),), float(a[0]), dtype=torch.float64, device=self.device)
        else:
            mass = self._copy(a, torch.float64)
        self.resident.offer(block, rows, mass)
        return rows, mass

    def _copy(self, array: np.ndarray, dtype: torch.dtype) -> Tensor:
        # Into torch's memory: a tensor cannot share a read-only memory map, and a new NumPy array
        # per block costs three times as much in page faults. For a GPU it is pinned, so that the
        # copy to the device runs beside the work that is queued there.
        on_gpu = self.device.type == "cuda"
        copy = torch.empty(array.shape, dtype=dtype, pin_memory=on_gpu)
        np.copyto(copy.numpy(), array)
        return copy.to(self.device, non_blocking=on_gpu)

    def map(self, function: Callable[[Block], Any]) -> Iterator[tuple[Block, Any]]:
        """Apply ``function`` to every block; yield each block with its result, in order.

        The caller stores the results, not ``function``: a map may run it in processes
        that have only a copy of an array.
        """
        return zip(self.blocks, self.compute.map_blocks(function, self.blocks), strict=True)

    def fill(
        self,
        out: Sequence[np.ndarray],
        function: Callable[[Block], tuple[np.ndarray | None, Any]],
        add: Callable[[Any, Any], Any] = operator.iadd,
    ) -> Any:
        """Compute one number per candidate and sums over all; see `gotd.transport.tree.fill`."""
        return tree.fill(self.blocks, self.compute.map_blocks, out, function, add)

    def mean_cost(self) -> float:
        """Compute the mean cost over all pairs in one pass, without the matrix product."""
        sums = self.fill((), lambda block: (None, Moments.of(*self.load_block(block))))
        # For equal points, rounding may give a small negative number.
        return max(0.0, mean_cost(sums, Moments.of(self.target, self.b)))

    def outputs(self, out: Sequence[np.ndarray] | None) -> tuple[np.ndarray, ...]:
        """Return arrays for one float64 per candidate: the given ones, or new ones.

        Raises:
            ValueError: If the shapes or types of the given ones do not fit the candidates.
        """
        lengths = [len(x) for x in self.problem.candidates]
        if out is None:
            return tuple(np.empty(length) for length in lengths)
        if [(array.shape, array.dtype) for array in out] != [((n,), np.float64) for n in lengths]:
            raise ValueError("out must hold one float64 array [n_k] per candidate array")
        return tuple(out)


class Logits:
    """The matrix product of all solvers: ``-C_ij / eps`` up to a constant per row.

    ``-C_ij / eps = 2/eps <x_i, y_j> - |y_j|^2 / eps - |x_i|^2 / eps``. The last term is left
    out because it cancels in every row-wise softmax.

    Args:
        stream: The problem, with the targets on its device.
        epsilon: Absolute epsilon.
    """

    def __init__(self, stream: Stream, epsilon: float) -> None:
        self.reduced = stream.compute.precision == "bfloat16"
        self.weight = (stream.target * (2.0 / epsilon)).T.contiguous()
        self.offset = -stream.target_squared.double() / epsilon
        self.dtype = stream.dtype
        if self.reduced:
            self.reduced_weight = self.weight.bfloat16()

    @property
    def operand(self) -> Tensor:
        """Return ``[d, m]`` weights in the type that rows are multiplied with."""
        return self.reduced_weight if self.reduced else self.weight

    def bias(self, gamma: Tensor | None = None) -> Tensor:
        """Return ``[m]`` what is added to every row.

        Args:
            gamma: ``[m]`` float64 ``g / eps + log b``.
        """
        return (self.offset if gamma is None else self.offset + gamma).to(self.dtype)

    def __call__(self, x: Tensor, gamma: Tensor | None = None, exact: bool = False) -> Tensor:
        """Compute the ``[n, m]`` logits of ``[n, d]`` rows.

        Args:
            x: Mapped, shifted rows.
            gamma: ``[m]`` float64 ``g / eps + log b``, added to every row.
            exact: Use the full precision even if a reduced one is set.
        """
        bias = self.bias(gamma)
        if not self.reduced or exact:
            return linear(x, self.weight.T, bias)
        if x.is_cuda:
            # Logits are up to hundreds: an output rounded to 8 bits would be wrong by tenths.
            z = torch.mm(x.bfloat16(), self.reduced_weight, out_dtype=torch.float32)
        else:
            z = torch.mm(x.bfloat16(), self.reduced_weight).float()
        return z.add_(bias)
