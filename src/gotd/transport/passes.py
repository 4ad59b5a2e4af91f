"""Passes over all candidates, and the precision in which their result is true.

A pass gives every candidate's potential and the mass that each target receives. Its error is
the certificate of a solve. Products in bfloat16 certify nothing: the potentials fulfil the
masses of *rounded* costs, and the error is measured with the same rounded costs. It was
reported as 8e-5 where the exact costs say 3e-3. The same holds for float32 at a tolerance or
an epsilon so small that its rounding matters.

So a pass in reduced precision only steers the fit. An error that is to be reported is
compared with what rounding contributes, on a sample of rows computed in float64. Unless that
is a small part, the pass is repeated in the next higher precision. A mean over a sample averages
out fewer rounding errors than the mean over all rows, so the estimate is rather too large.

A pass in float32 keeps its plan where memory allows, and the passes after it are then changes of
the stored plan, without a matrix product.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from gotd.transport.blocks import Block, Logits, Precision, Stream, smallest_weight
from gotd.transport.cost import squared_norms
from gotd.transport.reference import gather
from gotd.transport.stored import Stored, StoredPlan, fits

# Largest share of a reported error that rounding may contribute. The sample's estimate is
# itself uncertain, and the promise is a tenth.
ROUNDING_SHARE = 0.025

# Rows whose rounding is measured in float64.
ROUNDING_ROWS = 256

HIGHER: dict[Precision, Precision] = {"bfloat16": "float32", "float32": "float64"}

# Widest rows of a float32 pass by kernels. They compute every product twice, to save about forty
# bytes of memory traffic a logit. In bfloat16 the products are the cheaper part at any width, in
# float32 without TF32 they are so for narrow rows only. This is arithmetic with the data sheet of
# an H200, not a measurement; `experiments/benchmarks/gpu.py` measures both.
FUSED_FLOAT32_WIDTH = 128


class Passes:
    """Passes over all candidates of a problem, in the lowest precision that is sufficient.

    Args:
        stream: The candidates; its precision is the lowest.
        epsilon: Absolute epsilon.
        where: ``[k, 2]`` int64 pairs (array, row): a sample of the candidates.
        mass: ``[k]`` float64 masses of these rows.
        weight: Maps ``[n]`` potentials to the share of its mass that a row sends; ``None``: all.
        stores: Whether to keep the plan of a pass for those after it, where memory allows.

    Attributes:
        stores: Whether plans are kept. Then every pass is exact: one in reduced precision would
            have no plan to change, so it would be a pass more.
        certifies: Whether no pass is in a precision whose error must not be reported.
        done: Passes with a matrix product over all candidates.
        corrected: Passes that were changes of a stored plan.
        precision: Precision in which errors are reported at present. It only rises.
        rounding: Estimated part of rounding in the last certified error.
    """

    def __init__(
        self,
        stream: Stream,
        epsilon: float,
        where: np.ndarray,
        mass: np.ndarray,
        weight: Callable[[Tensor], Tensor] | None = None,
        stores: bool = True,
    ) -> None:
        self.epsilon, self.weight = epsilon, weight
        self.done, self.corrected, self.rounding = 0, 0, 0.0
        lowest = stream.compute.precision
        self.precision: Precision = "float32" if lowest == "bfloat16" else lowest
        self._streams = {lowest: stream}
        self._lowest: Precision = lowest
        problem = stream.problem
        self.stores = stores and fits(problem.n_candidates, problem.n_target)
        self.certifies = self.stores or lowest == self.precision
        rows = np.unique(np.linspace(0, len(where) - 1, ROUNDING_ROWS).astype(np.int64))
        self._sample = where[rows], mass[rows]
        self._plan: StoredPlan | None = None

    def scan(self, gamma: Tensor, out: Sequence[np.ndarray], exact: bool = True) -> Tensor:
        """Compute candidate potentials and received masses, see `scan`.

        Args:
            gamma: ``[m]`` float64 ``g / eps + log b``.
            out: Per candidate array ``[n_k]`` float64, filled with the potential.
            exact: Whether the error may be reported. Otherwise the precision is the lowest.

        Returns:
            ``[m]`` float64 mass that each target receives.
        """
        if self.stores:
            # Plain arrays of this process, which changes of a stored plan write, too.
            out = [np.asarray(array) for array in out]
        if exact and self._plan is not None and self._plan.reaches(gamma):
            self.corrected += 1
            return self._plan.scan(gamma, out)
        precision = self.precision if exact else self._lowest
        self.done, self._plan = self.done + 1, None
        if exact and precision == "float32" and self.stores:
            self._plan = StoredPlan(self.epsilon, gamma, self.weight)
        return scan(self._stream(precision), self.epsilon, gamma, out, self.weight, self._plan)

    def certify(
        self,
        gamma: Tensor,
        out: Sequence[np.ndarray],
        received: Tensor,
        error_of: Callable[[Tensor], float],
        exact: bool = True,
    ) -> Tensor:
        """Repeat a pass until rounding is a small part of its error.

        Args:
            gamma: ``[m]`` float64 of the pass.
            out: Per candidate array ``[n_k]`` float64 that the pass has filled.
            received: ``[m]`` float64 masses of the pass.
            error_of: Computes the error of received masses.
            exact: Whether the pass was in `precision`.

        Returns:
            ``[m]`` float64 masses of the last repetition, or ``received``.
        """
        while True:
            if not exact:
                received, exact = self.scan(gamma, out), True
            self.rounding = self._measure_rounding(gamma)
            if self.rounding <= ROUNDING_SHARE * error_of(received):
                return received
            if self._plan is not None and self._plan.gamma is not gamma:
                self._plan = None  # The stored entries are too coarse: a pass of its own.
            else:
                self.precision = HIGHER[self.precision]
            exact = False

    def _measure_rounding(self, gamma: Tensor) -> float:
        """Compute ``|r - r'|_1 / |r'|_1`` of the sample, ``r'`` in float64.

        If the last pass changed a stored plan, so does the one that is measured.
        """
        if self.precision == "float64":
            return 0.0
        problem = self._stream(self.precision).problem
        where, mass = self._sample
        rows = gather(problem.candidates, where)
        few = dataclasses.replace(problem, candidates=[rows], candidate_mass=[mass])
        received = []
        for precision in (self.precision, "float64"):
            compute = dataclasses.replace(
                self._stream(self.precision).compute, precision=precision, map_blocks=map
            )
            stream, out = Stream(few, compute), [np.empty(len(rows))]
            if self._plan is None or precision == "float64":
                received.append(scan(stream, self.epsilon, gamma, out, self.weight))
                continue
            plan = StoredPlan(self.epsilon, self._plan.gamma, self.weight)
            scan(stream, self.epsilon, plan.gamma, out, self.weight, plan)
            received.append(plan.scan(gamma, out))
        return float((received[0] - received[1]).abs().sum() / received[1].sum())

    def _stream(self, precision: Precision) -> Stream:
        if precision not in self._streams:
            self._streams[precision] = self._streams[self._lowest].with_precision(precision)
        return self._streams[precision]


class Sums(Protocol):
    """Sums over the rows and the columns of a block of ``exp(logit)``.

    Attributes:
        unit: What a logit is multiplied by to be a natural logarithm.
    """

    unit: float

    def sum_rows(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return what `sum_columns` needs, and ``[n]`` largest logits and sums over them.

        Args:
            x: ``[n, d]`` rows that a stream loaded.
        """
        ...

    def sum_columns(self, entries: Tensor, top: Tensor, sent: Tensor) -> Tensor:
        """Return ``[m]`` float64 ``sum_i sent_i exp(logit_ij - top_i)``.

        Args:
            entries: First result of `sum_rows`.
            top: ``[n]`` its second.
            sent: ``[n]`` masses of the rows, divided by their sums.
        """
        ...


class PlainSums:
    """Sums over logits that are written, whose exponentials a plan may keep."""

    def __init__(self, stream: Stream, epsilon: float, gamma: Tensor) -> None:
        # In float32 the logits are in base 2: on a CPU torch's exp2 takes a third of the time
        # of its exp, and the factor is part of the matrix product.
        self.base_2 = stream.dtype == torch.float32
        self.unit = math.log(2.0) if self.base_2 else 1.0
        self.logits, self.gamma = Logits(stream, epsilon * self.unit), gamma / self.unit
        self.lowest = math.log(smallest_weight(stream.dtype)) / self.unit

    def sum_rows(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return ``[n, m]`` exponentials over each row's largest, the largest and the sums."""
        z = self.logits(x, self.gamma)
        top = z.amax(dim=1)
        z.sub_(top[:, None]).clamp_(min=self.lowest)
        z.exp2_() if self.base_2 else z.exp_()
        return z, top, z.sum(dim=1)

    def sum_columns(self, entries: Tensor, top: Tensor, sent: Tensor) -> Tensor:
        """Return ``[m]`` float64 sums of the exponentials over the rows."""
        return (entries.T @ sent).double()


def sums_of(stream: Stream, epsilon: float, gamma: Tensor, stores: bool = False) -> Sums:
    """Return the sums of a pass: by kernels on a GPU, where these are faster, and else plain.

    Args:
        stream: The candidates.
        epsilon: Absolute epsilon.
        gamma: ``[m]`` float64 ``g / eps + log b``.
        stores: Whether a plan keeps the entries, which only plain sums write.
    """
    plain = PlainSums(stream, epsilon, gamma)
    if stores or not is_fusible(plain.logits):
        return plain
    from gotd.transport.fused import FusedSums

    return FusedSums(plain.logits.operand, plain.logits.bias(plain.gamma), plain.lowest)


def is_fusible(logits: Logits) -> bool:
    """Return whether kernels compute a pass, and faster than torch does."""
    if not logits.weight.is_cuda or logits.dtype == torch.float64 or find_spec("triton") is None:
        return False
    if not logits.reduced and len(logits.weight) > FUSED_FLOAT32_WIDTH:
        return False
    from gotd.transport.fused import is_trusted

    return is_trusted(logits.weight.device, logits.operand.dtype)


def scan(
    stream: Stream,
    epsilon: float,
    gamma: Tensor,
    out: Sequence[np.ndarray],
    weight: Callable[[Tensor], Tensor] | None = None,
    keep: StoredPlan | None = None,
) -> Tensor:
    """Compute the candidates' potentials and the targets' masses in one pass over all candidates.

    Args:
        stream: The candidates.
        epsilon: Absolute epsilon.
        gamma: ``[m]`` float64 ``g / eps + log b``.
        out: Per candidate array ``[n_k]`` float64, filled with ``f``.
        weight: Maps ``[n]`` ``f`` to the share of its mass that a row sends; ``None``: all.
        keep: Receives the plan of this pass.

    Returns:
        ``[m]`` float64 mass that each target receives.
    """
    sums = sums_of(stream, epsilon, gamma, stores=keep is not None)

    def pass_block(block: Block) -> tuple[np.ndarray, tuple[Tensor, list[Stored]]]:
        x, mass = stream.load_block(block)
        entries, top, row_sums = sums.sum_rows(x)
        soft_max = sums.unit * top.double() + row_sums.double().log()
        f = squared_norms(x).double() - epsilon * soft_max
        sent = mass if weight is None else mass * weight(f)
        received = sums.sum_columns(entries, top, sent.to(top.dtype) / row_sums)
        stored = []
        if keep is not None:
            stored.append((block, entries.div_(row_sums[:, None]).half(), f, mass))
        return f.cpu().numpy(), (received, stored)

    received, stored = stream.fill(out, pass_block, _add)
    if keep is not None:
        for entries in stored:
            keep.add(*entries)
        keep.complete(received)
    return received


def _add(
    one: tuple[Tensor, list[Stored]], other: tuple[Tensor, list[Stored]]
) -> tuple[Tensor, list[Stored]]:
    return one[0].add_(other[0]), one[1] + other[1]
