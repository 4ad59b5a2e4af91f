"""The calibrated gradient: the derivative of the transport cost in a candidate's mass.

GOT-D ranks candidates by the gradient of ``OT(candidates, target)`` in the candidates'
masses and selects the most negative ones first. The gradient is the candidate potential
without its arbitrary constant.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

TOO_FEW = "a calibrated gradient needs at least two candidates; add candidates"


def calibrated_gradient(potential: np.ndarray, mass: np.ndarray | None = None) -> np.ndarray:
    """Compute the calibrated gradient of the transport cost for each candidate.

    With equal masses, ``N / (N - 1) * (f_i - mean f)``: the rate at which the cost
    changes when mass moves onto candidate ``i``, taken evenly from all *others*. With
    general masses, ``f_i - <a, f>``: mass moves onto ``i``, taken from all in
    proportion to ``a``. Lower is better: more mass on a candidate with a negative value
    moves the candidates' distribution towards the target.

    The map is increasing and affine in ``potential``, so it never changes a ranking. It
    makes values comparable: ``f + c`` gives the same values for every constant ``c``.

    Args:
        potential: ``[n]`` candidate potential in cost units, not divided by epsilon.
        mass: ``[n]`` masses, or ``None`` for equal ones; scaled to sum to 1.

    Returns:
        ``[n]`` float64 values in cost units, whose mean under the masses is zero.

    Raises:
        ValueError: If fewer than two candidates are given, or the masses do not fit.

    Source: GOT-D (ICLR 2024) section 2.3 and Theorem 1; LAVA (ICLR 2023) for the
    calibration. The published notebook keeps a multiple ``c / N`` of the constant.
    """
    f = np.array(potential, dtype=np.float64)
    if mass is None:
        calibrate([f])
        return f
    if len(f) < 2:
        raise ValueError(TOO_FEW)
    a = np.asarray(mass, dtype=np.float64)
    if a.shape != f.shape or (a < 0).any() or not a.sum() > 0:
        raise ValueError("mass must hold one number >= 0 per candidate, not all zero")
    # Subtract one value first: a large common constant would cause rounding errors.
    f = f - f[0]
    return f - float(a @ f) / float(a.sum())


def calibrate(potential: Sequence[np.ndarray]) -> None:
    """Replace potentials by calibrated gradients for equal masses, in place.

    Arrays are handled one after the other without copies, so they may be files.

    Args:
        potential: Per candidate array ``[n_k]`` float64 potential, overwritten.

    Raises:
        ValueError: If there are fewer than two candidates.
    """
    n = sum(map(len, potential))
    if n < 2:
        raise ValueError(TOO_FEW)
    mean = sum(float(np.sum(values)) for values in potential) / n
    for values in potential:
        values -= mean
        values *= n / (n - 1)
