"""A pass over a block in two sweeps that never write its logits, as Triton kernels.

The plain pass writes ``[n, m]`` logits and reads them six times: for the largest of each row,
the difference, the smallest weight, the exponential, the row sums and the column sums. Here a
tile of logits is computed, reduced and dropped. The first sweep finds each row's largest logit
and its sum of exponentials, rescaled as larger logits appear. The second computes the tiles
again and sums the normalised entries of each column. So the products are computed twice.

Products of float32 numbers are exact ones, without TF32; those of bfloat16 numbers are summed
in float32. Exponentials are in base 2. A column is summed in pieces of some thousand rows, and
the pieces in float64 by torch, so that the result does not depend on the order of programs.

Source: Milakov and Gimelshein (2018), Online normalizer calculation for softmax.
"""

# No postponed annotations here: Triton reads them.
import math
import warnings
from functools import cache
from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.nn.functional import pad

# Rows of a column's piece. Its sum is in float32.
PIECE_ROWS = 4096

# Largest relative difference from float64 at which the kernels are trusted. Rounding of float32 is
# well below it; that of TF32 is above it.
TRUSTED = 1e-4


class Tile(NamedTuple):
    """Sizes of a tile of logits, and how Triton computes it; not tuned on any GPU."""

    rows: int
    targets: int
    width: int
    warps: int
    stages: int


TILES = {torch.float32: Tile(64, 64, 32, 4, 2), torch.bfloat16: Tile(128, 128, 64, 8, 3)}


@triton.jit
def _logits(
    x,
    weight,
    bias,
    rows,
    targets,
    n,
    d,
    stride,
    ROWS: tl.constexpr,
    TARGETS: tl.constexpr,
    WIDTH: tl.constexpr,
    WIDEN: tl.constexpr,
):
    """Compute a tile of ``x @ weight + bias``; rows from ``n`` on are zero before ``bias``."""
    z = tl.zeros((ROWS, TARGETS), dtype=tl.float32)
    # 64 bits: a block may have more than 2**31 numbers.
    x_rows = x + rows.to(tl.int64)[:, None] * d
    for start in range(0, d, WIDTH):
        k = start + tl.arange(0, WIDTH)
        left = tl.load(x_rows + k[None, :], mask=(rows[:, None] < n) & (k[None, :] < d), other=0.0)
        right = tl.load(
            weight + k.to(tl.int64)[:, None] * stride + targets[None, :],
            mask=k[:, None] < d,
            other=0.0,
        )
        if WIDEN:
            left = left.to(tl.float32)
            right = right.to(tl.float32)
        z = tl.dot(left, right, z, input_precision="ieee")
    return z + tl.load(bias + targets)[None, :]


@triton.jit
def _sum_rows(
    x,
    weight,
    bias,
    top_out,
    sum_out,
    n,
    d,
    stride,
    ROWS: tl.constexpr,
    TARGETS: tl.constexpr,
    WIDTH: tl.constexpr,
    WIDEN: tl.constexpr,
):
    """Write each row's largest logit ``t`` and its sum of ``2**(z - t)``."""
    rows = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    top = tl.full((ROWS,), float("-inf"), dtype=tl.float32)
    total = tl.zeros((ROWS,), dtype=tl.float32)
    for start in range(0, stride, TARGETS):
        targets = start + tl.arange(0, TARGETS)
        z = _logits(x, weight, bias, rows, targets, n, d, stride, ROWS, TARGETS, WIDTH, WIDEN)
        higher = tl.maximum(top, tl.max(z, axis=1))
        total = total * tl.exp2(top - higher) + tl.sum(tl.exp2(z - higher[:, None]), axis=1)
        top = higher
    tl.store(top_out + rows, top, mask=rows < n)
    tl.store(sum_out + rows, total, mask=rows < n)


@triton.jit
def _sum_columns(
    x,
    weight,
    bias,
    top,
    sent,
    out,
    n,
    d,
    stride,
    piece,
    lowest,
    ROWS: tl.constexpr,
    TARGETS: tl.constexpr,
    WIDTH: tl.constexpr,
    WIDEN: tl.constexpr,
):
    """Write ``sum_i sent_i 2**(z_ij - t_i)`` over the rows of a piece, for a tile of targets."""
    targets = tl.program_id(0) * TARGETS + tl.arange(0, TARGETS)
    first = tl.program_id(1) * piece
    total = tl.zeros((TARGETS,), dtype=tl.float32)
    for start in range(0, piece, ROWS):
        rows = first + start + tl.arange(0, ROWS)
        z = _logits(x, weight, bias, rows, targets, n, d, stride, ROWS, TARGETS, WIDTH, WIDEN)
        # Infinity for rows that are not there: their weight is the lowest and they send nothing.
        t = tl.load(top + rows, mask=rows < n, other=float("inf"))
        s = tl.load(sent + rows, mask=rows < n, other=0.0)
        p = tl.exp2(tl.maximum(z - t[:, None], lowest))
        total += tl.sum(p * s[:, None], axis=0)
    tl.store(out + tl.program_id(1) * stride + targets, total)


class FusedSums:
    """Sums over the rows and columns of ``2**(x @ weight + bias)``, of which nothing is written.

    See `gotd.transport.passes.Sums`.

    Args:
        weight: ``[d, m]`` float32 or bfloat16, the operand of the rows' product.
        bias: ``[m]`` float32, added to every row.
        lowest: Logarithm, in base 2, of the smallest weight of an entry in a column's sum.
    """

    unit = math.log(2.0)

    def __init__(self, weight: Tensor, bias: Tensor, lowest: float) -> None:
        self.tile = TILES[weight.dtype]
        self.m, self.lowest = len(bias), lowest
        # Whole tiles of targets: the ones that are not there have weight zero in every row.
        missing = -self.m % self.tile.targets
        self.weight = pad(weight, (0, missing)).contiguous()
        self.bias = pad(bias, (0, missing), value=-math.inf)
        # Triton's interpreter has no products of bfloat16. Widened, they are the same numbers.
        self.settings = {
            "ROWS": self.tile.rows,
            "TARGETS": self.tile.targets,
            "WIDTH": self.tile.width,
            "WIDEN": not weight.is_cuda,
            "num_warps": self.tile.warps,
            "num_stages": self.tile.stages,
        }

    def sum_rows(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return ``[n, d]`` rows as operands, each row's largest logit and the sum over it."""
        x = x.to(self.weight.dtype).contiguous()
        top, total = x.new_empty((2, len(x)), dtype=torch.float32)
        grid = (math.ceil(len(x) / self.tile.rows),)
        kernel: Any = _sum_rows  # the settings of a launch are no arguments of the function
        kernel[grid](
            *(x, self.weight, self.bias, top, total, *x.shape, len(self.bias)), **self.settings
        )
        return x, top, total

    def sum_columns(self, entries: Tensor, top: Tensor, sent: Tensor) -> Tensor:
        """Return ``[m]`` float64 ``sum_i sent_i 2**(z_ij - top_i)``; ``entries`` are the rows."""
        n, stride = len(entries), len(self.bias)
        piece = min(PIECE_ROWS, self.tile.rows * math.ceil(n / self.tile.rows))
        grid = stride // self.tile.targets, math.ceil(n / piece)
        kernel: Any = _sum_columns
        out = entries.new_empty((grid[1], stride), dtype=torch.float32)
        kernel[grid](
            *(entries, self.weight, self.bias, top, sent.contiguous(), out),
            *(*entries.shape, stride, piece, self.lowest),
            **self.settings,
        )
        return out.sum(dim=0, dtype=torch.float64)[: self.m]


@cache
def is_trusted(device: torch.device, dtype: torch.dtype) -> bool:
    """Compare the kernels with torch on a small block, once per device and type of operands.

    Triton compiles at the first call. That fails without a C compiler, or where a tile needs more
    memory than a multiprocessor has. The plain pass is right everywhere, so a failure is a
    warning.

    Args:
        device: A CUDA device.
        dtype: float32 or bfloat16.
    """
    draw = torch.Generator().manual_seed(0)
    tile = TILES[dtype]
    n, m, d = 2 * tile.rows + 3, 2 * tile.targets + 5, tile.width + 16
    x, weight = (torch.randn(size, generator=draw).to(device, dtype) for size in ((n, d), (d, m)))
    bias, sent = (torch.rand(size, generator=draw).to(device) for size in (m, n))
    lowest = -90.0
    z = x.double() @ weight.double() + bias
    top = z.amax(dim=1)
    p = (z - top[:, None]).clamp(min=lowest).exp2()
    expected = torch.cat([top + p.sum(dim=1).log2(), p.T @ sent.double()])
    try:
        fused = FusedSums(weight, bias, lowest)
        rows, largest, total = fused.sum_rows(x)
        columns = fused.sum_columns(rows, largest, sent)
        found = torch.cat([(largest + total.log2()).double(), columns])
        worst = float(((found - expected).abs() / expected.abs().clamp(min=1.0)).max())
        reason = "" if worst <= TRUSTED else f"they differ from torch by {worst:.2g}"
    except Exception as error:  # noqa: BLE001 -- whatever a compiler raises
        reason = f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
    if reason:
        warnings.warn(
            f"the fused kernels of the transport pass cannot be used on {device}: {reason}. "
            "Plain ones are used: the result is the same, the pass is slower",
            RuntimeWarning,
            stacklevel=2,
        )
    return not reason
