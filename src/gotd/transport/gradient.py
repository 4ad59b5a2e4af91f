"""The calibrated gradient: the derivative of the transport cost in a candidate's mass.

GOT-D ranks candidates by the gradient of ``OT(candidates, target)`` in the candidates'
masses and selects the most negative ones first. The gradient is the candidate potential
without its arbitrary constant.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def calibrate(potential: Sequence[np.ndarray]) -> None:
    """Replace potentials by calibrated gradients for equal masses, in place.

    ``N / (N - 1) * (f_i - mean f)`` is the rate at which the cost changes when mass moves
    onto candidate ``i``, taken evenly from all *others*. Lower is better: more mass on a
    candidate with a negative value moves the candidates' distribution towards the target.

    The map is increasing and affine in ``f``, so it never changes a ranking. It makes values
    comparable: ``f + c`` gives the same values for every constant ``c``. Arrays are handled
    one after the other without copies, so they may be files.

    Args:
        potential: Per candidate array ``[n_k]`` float64 potential in cost units, not divided
            by epsilon; overwritten. The mean of all values is zero afterwards.

    Raises:
        ValueError: If there are fewer than two candidates.

    Source: GOT-D (ICLR 2024) section 2.3 and Theorem 1; LAVA (ICLR 2023) for the
    calibration. The published notebook keeps a multiple ``c / N`` of the constant.
    """
    n = sum(map(len, potential))
    if n < 2:
        raise ValueError("a calibrated gradient needs at least two candidates; add candidates")
    mean = sum(float(np.sum(values)) for values in potential) / n
    for values in potential:
        values -= mean
        values *= n / (n - 1)
