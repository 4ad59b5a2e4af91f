import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gotd.evaluation.batches import CALL_TOKENS, by_length

LENGTHS = st.lists(st.integers(0, 60), max_size=12)


def cost(lengths, batches):
    return sum(len(b) * max(1, *(lengths[i] for i in b)) + CALL_TOKENS for b in batches)


def partitions(n):
    """Give every way to cut ``n`` sorted rows into batches."""
    for cuts in range(2 ** max(0, n - 1)):
        batches, batch = [], [0]
        for i in range(1, n):
            if cuts >> (i - 1) & 1:
                batches.append(batch)
                batch = []
            batch.append(i)
        yield [*batches, batch]


@given(LENGTHS, st.integers(1, 200), st.sampled_from(["cpu", "cuda"]))
def test_every_row_is_in_one_batch_of_bounded_size(lengths, most, device):
    batches = by_length(lengths, most, device)
    assert sorted(i for batch in batches for i in batch) == list(range(len(lengths)))
    for batch in batches:
        assert len(batch) == 1 or len(batch) * max(lengths[i] for i in batch) <= most
    assert [lengths[i] for batch in batches for i in batch] == sorted(lengths)


@given(st.lists(st.integers(1, 60), min_size=1, max_size=9), st.integers(1, 200))
def test_a_cpu_gets_the_cheapest_batches(lengths, most):
    lengths = sorted(lengths)
    allowed = [
        found
        for found in partitions(len(lengths))
        if all(len(b) == 1 or len(b) * lengths[b[-1]] <= most for b in found)
    ]
    least = min(cost(lengths, found) for found in allowed)
    assert cost(lengths, by_length(lengths, most, "cpu")) == least


def test_an_accelerator_gets_full_batches():
    lengths = np.arange(1, 101).tolist()
    batches = by_length(lengths, 400, "cuda")
    for batch, following in zip(batches, batches[1:], strict=False):
        assert (len(batch) + 1) * lengths[following[0]] > 400


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_no_rows_are_no_batches(device):
    assert by_length([], 100, device) == []
