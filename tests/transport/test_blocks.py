"""Candidates stay on the device between passes where they fit, and change no number there."""

import pickle

import numpy as np
import pytest
import torch

from gotd.transport import Compute, Problem, blocks, solve_semidual, stored
from gotd.transport.blocks import Block, Stream
from gotd.transport.passes import scan

ROWS, WIDTH = 100, 16
BLOCK_BYTES = ROWS * WIDTH * 4 + ROWS * 8
"""Bytes of a block of float32 rows and float64 masses."""


@pytest.fixture
def problem(mixture):
    return Problem(mixture(20, 2, WIDTH), [mixture(250, 1, WIDTH), mixture(70, 3, WIDTH)])


@pytest.fixture
def device_of(monkeypatch):
    """Let the processor be a device with so many free bytes, and count the blocks it is sent."""
    loads = []
    load = Stream.load
    monkeypatch.setattr(Stream, "load", lambda self, rows: loads.append(rows) or load(self, rows))

    def set_free(free: int) -> list:
        monkeypatch.setattr(blocks, "free_bytes", lambda device: free)
        return loads

    return set_free


def compute(precision="float32") -> Compute:
    return Compute(precision, "cpu", block_rows=ROWS)


def passed(stream: Stream) -> tuple[np.ndarray, np.ndarray]:
    out = stream.outputs(None)
    received = scan(stream, 0.7, stream.b.log(), out)
    return np.concatenate(out), received.numpy()


def test_blocks_that_fit_are_copied_once(problem, device_of):
    f, received = passed(Stream(problem, compute()))
    loads = device_of(2 * 2 * BLOCK_BYTES + 1000)  # half of it is for blocks
    stream = Stream(problem, compute())
    stream.keep_blocks(reserve=1000)
    for copied in (4, 2, 2):
        loads.clear()
        again = passed(stream)
        assert len(loads) == copied
        np.testing.assert_array_equal(again[0], f)
        np.testing.assert_array_equal(again[1], received)
    assert stream.resident.room == 0


def test_nothing_stays_without_free_memory(problem, device_of):
    loads = device_of(10**6)
    stream = Stream(problem, compute())  # one pass only: keeps nothing
    passed(stream)
    passed(stream)
    assert len(loads) == 8
    stream.keep_blocks(reserve=10**7)
    assert stream.resident.room == 0
    assert blocks.free_bytes(torch.device("cpu")) == 10**6


def test_a_processor_keeps_no_copies(problem):
    stream = Stream(problem, compute())
    stream.keep_blocks()
    assert stream.resident.room == 0


def test_precisions_with_one_type_of_numbers_share_blocks(problem, device_of):
    loads = device_of(10**6)
    half = Stream(problem, compute("bfloat16"))
    half.keep_blocks()
    passed(half)
    loads.clear()
    single, double = half.with_precision("float32"), half.with_precision("float64")
    passed(single)
    assert single.compute.precision == "float32"
    assert not loads
    assert double.resident is not half.resident
    passed(double)
    assert len(loads) == 4


def test_a_copy_for_another_process_is_empty(problem, device_of):
    device_of(10**6)
    stream = Stream(problem, compute())
    stream.keep_blocks()
    passed(stream)
    first = Block(0, 0, ROWS)
    assert stream.resident.get(first) is not None
    copy = pickle.loads(pickle.dumps(stream.resident))
    assert copy.get(first) is None
    assert copy.room == 0


def test_masses_are_those_of_the_problem(mixture):
    mass = [np.linspace(0.0, 1.0, 250), np.full(70, 2.0)]
    rows = [mixture(250, 1, WIDTH), mixture(70, 3, WIDTH)]
    for masses in (None, mass):
        problem = Problem(mixture(20, 2, WIDTH), rows, candidate_mass=masses)
        stream = Stream(problem, compute())
        sent = np.concatenate([stream.load_block(block)[1].numpy() for block in stream.blocks])
        np.testing.assert_array_equal(sent, np.concatenate(problem.a))


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_solve_reads_candidates_once_and_gives_the_same(
    problem, device_of, monkeypatch, precision
):
    monkeypatch.setattr(stored, "MOST_ENTRIES", 0)  # every correction is a pass
    settings = {"reference_rows": 160, "tolerance": 3e-3, "compute": compute(precision)}
    priority = np.random.default_rng(0).random(320)
    priority = [priority[:250], priority[250:]]
    loads = device_of(0)
    alone = solve_semidual(problem, priority, **settings)
    every = sum(len(rows) for rows in loads)
    loads.clear()
    device_of(10**6)
    kept = solve_semidual(problem, priority, **settings)
    assert alone.passes == kept.passes > 1
    np.testing.assert_array_equal(np.concatenate(kept.candidate), np.concatenate(alone.candidate))
    assert kept.marginal_error == alone.marginal_error
    assert every - sum(len(rows) for rows in loads) == 320 * alone.passes
