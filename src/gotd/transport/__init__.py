"""Optimal transport between candidates and a target: arrays in, arrays out."""

from gotd.transport.blocks import Compute
from gotd.transport.cost import Geometry, Whitening
from gotd.transport.gradient import calibrate
from gotd.transport.problem import NotConverged, Potentials, Problem
from gotd.transport.semidual import score, solve_semidual

__all__ = [
    "Compute",
    "Geometry",
    "NotConverged",
    "Potentials",
    "Problem",
    "Whitening",
    "calibrate",
    "score",
    "solve_semidual",
]
