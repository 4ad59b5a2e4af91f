"""Sums and numbers per candidate do not depend on who computes them."""

from __future__ import annotations

import pickle
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction

import numpy as np
import pytest

from gotd.storage.memmap import create_array, open_array
from gotd.transport import Compute, Problem, solve_semidual, tree
from gotd.transport.blocks import Block, Stream
from gotd.transport.passes import scan


def blocks(count: int, rows: int = 3) -> list[Block]:
    return [Block(i % 2, rows * (i // 2), rows * (i // 2) + rows) for i in range(count)]


@pytest.mark.parametrize("count", [1, 127, 255, 256, 1000, 128 * 64 + 500, 20_000])
def test_groups_hold_all_blocks_in_order_and_depend_on_their_number_alone(count):
    given = blocks(count)
    groups = tree.groups_of(given)
    assert [block for group in groups for block in group] == given
    sizes = {len(group) for group in groups[:-1]} or {1}
    assert sizes == {1} if count < 2 * tree.GROUPS else max(sizes) <= tree.MOST_BLOCKS
    assert len(groups) >= min(count, tree.GROUPS)


def test_the_sum_is_that_of_all_parts_and_as_exact_as_float64():
    random = np.random.default_rng(0)
    given, parts = blocks(3000), random.lognormal(0, 6, 3000)
    number = {block: place for place, block in enumerate(given)}
    found = tree.fill(
        given, map, (), lambda block: (None, parts[number[block]]), lambda one, other: one + other
    )
    exact = float(sum(map(Fraction, parts.tolist())))
    assert abs(found - exact) <= 3000 * 2**-53 * exact


def there_and_back(function, items):
    """Map like another process: it has copies, and the caller has nothing but the results."""
    cloudpickle = pytest.importorskip("cloudpickle")
    sent = cloudpickle.dumps(function)
    for item in items:
        yield pickle.loads(cloudpickle.dumps(pickle.loads(sent)(item)))


def in_threads(function, items):
    with ThreadPoolExecutor(3) as pool:
        yield from pool.map(function, items)


@pytest.fixture
def problem(mixture):
    return Problem(mixture(30, 2, 8), [mixture(700, 1, 8), mixture(333, 3, 8)])


@pytest.fixture
def several_groups(monkeypatch):
    monkeypatch.setattr(tree, "GROUPS", 5)


@pytest.mark.parametrize("how", [in_threads, there_and_back])
@pytest.mark.parametrize("in_files", [False, True])
def test_a_pass_has_the_same_bits_wherever_it_is_computed(
    problem, several_groups, tmp_path, how, in_files
):
    def passed(map_blocks, out):
        stream = Stream(problem, Compute("float32", "cpu", 40, map_blocks))
        assert {len(group) for group in tree.groups_of(stream.blocks)} >= {5}
        return scan(stream, 0.7, stream.b.log(), out).numpy()

    here = [np.empty(700), np.empty(333)]
    received = passed(map, here)
    out = [np.empty(700), np.empty(333)]
    if in_files:
        out = [create_array(tmp_path / f"{n}.npy", (n,), "<f8") for n in (700, 333)]
    np.testing.assert_array_equal(passed(how, out), received)
    for mine, other in zip(here, out, strict=True):
        np.testing.assert_array_equal(mine, other)


def test_values_of_files_do_not_travel(problem, several_groups, tmp_path):
    sent = []

    def watched(function, items):
        for result in there_and_back(function, items):
            sent.append(len(pickle.dumps(result)))
            yield result

    compute = Compute("float32", "cpu", 40, watched)
    for in_files in (False, True):
        sent.clear()
        out = [np.empty(700), np.empty(333)]
        if in_files:
            out = [create_array(tmp_path / f"{n}.npy", (n,), "<f8") for n in (700, 333)]
        stream = Stream(problem, compute)
        scan(stream, 0.7, stream.b.log(), out)
        assert (sum(sent) > 8 * 1033) != in_files


def test_a_solve_into_files_is_that_into_memory(problem, several_groups, tmp_path, monkeypatch):
    monkeypatch.setattr("gotd.transport.passes.fits", lambda n, m: False)  # as if it were large
    priority = [np.random.default_rng(1).random(n) for n in (700, 333)]
    out = [create_array(tmp_path / f"{n}.npy", (n,), "<f8") for n in (700, 333)]
    options = {"reference_rows": 200, "tolerance": 1e-3}
    here = solve_semidual(problem, priority, **options, compute=Compute("float32", "cpu", 40))
    compute = Compute("float32", "cpu", 40, there_and_back)
    there = solve_semidual(problem, priority, **options, compute=compute, out=out)
    assert here.passes > 1
    assert here.history == there.history
    for number, mine in zip((700, 333), here.candidate, strict=True):
        np.testing.assert_array_equal(mine, open_array(tmp_path / f"{number}.npy"))
