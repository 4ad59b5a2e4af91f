import numpy as np
import pytest
import torch

from gotd.storage.seeds import derive_seed
from gotd.training.data import (
    WIDTH_MULTIPLE,
    Batch,
    BatchStream,
    order_epoch,
    own_parts,
    pad_rows,
    read_task_rows,
    tokenise,
)
from gotd.training.models import load_tokenizer


@pytest.fixture(scope="module")
def rows(tiny_base, texts):
    return tokenise(load_tokenizer(tiny_base), texts, None, 48)


def test_rows_keep_their_tokens_and_mark_special_ones(rows, tiny_base, texts):
    tokenizer = load_tokenizer(tiny_base)
    assert rows.lengths.tolist() == [len(t.split()) + 2 for t in texts]
    part = pad_rows(rows, np.array([3, 0, 7]))
    for i, row in enumerate([3, 0, 7]):
        kept = part["input_ids"][i][part["attention_mask"][i].bool()]
        assert tokenizer.decode(kept, skip_special_tokens=True) == texts[row]
    assert rows.special.sum() == 2 * len(texts)


def test_pair_has_two_segments_and_is_cut(tiny_base):
    rows = tokenise(load_tokenizer(tiny_base), ["w1 w2 w3 w4", "w5"], ["w6", "w7 w8"], 6)
    assert rows.lengths.tolist() == [6, 6]
    assert rows.second.tolist() == [0, 0, 0, 0, 1, 1] + [0, 0, 0, 1, 1, 1]


def test_order_takes_each_row_once_with_less_padding_and_anew_each_epoch():
    lengths = np.random.default_rng(0).integers(5, 100, size=1003)
    first = order_epoch(lengths, 16, seed=3, epoch=0)
    assert sorted(np.concatenate(first).tolist()) == list(range(1003))
    assert len(first) == 63
    padded = sum(lengths[b].max() * len(b) for b in first)
    plain = sum(lengths[i : i + 16].max() * 16 for i in range(0, 1003, 16))
    assert padded < 1.15 * lengths.sum() < plain
    again = order_epoch(lengths, 16, seed=3, epoch=0)
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert not np.array_equal(first[0], order_epoch(lengths, 16, seed=3, epoch=1)[0])
    assert not np.array_equal(first[0], order_epoch(lengths, 16, seed=4, epoch=0)[0])


@pytest.mark.parametrize("n_rows", [1, 5, 16, 33])
@pytest.mark.parametrize("devices", [1, 2, 4])
def test_devices_share_a_batch_without_overlap_in_equally_many_parts(n_rows, devices, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", str(devices))
    shares = []
    for rank in range(devices):
        monkeypatch.setenv("RANK", str(rank))
        shares.append(own_parts(n_rows, 4))
    assert len({len(share) for share in shares}) == 1
    assert max(len(part) for share in shares for part in share) <= 4
    taken = np.concatenate([part for share in shares for part in share])
    assert sorted(taken.tolist()) == list(range(n_rows))


def test_stream_goes_on_where_it_stood(rows):
    def stream():
        return BatchStream(
            rows.lengths,
            8,
            range(12),
            5,
            lambda step, which: Batch([{"rows": torch.from_numpy(which)}], step),
        )

    whole = list(stream())
    first = stream()
    taken = [batch for batch, _ in zip(first, range(7), strict=False)]
    second = stream()
    second.load_state_dict(first.state_dict())
    rest = list(second)
    # zip asks for one batch too many before it stops.
    assert [b.terms for b in taken + rest] == [*range(7), *range(8, 12)]
    for batch in taken + rest:
        assert torch.equal(batch.parts[0]["rows"], whole[batch.terms].parts[0]["rows"])
    assert second.tokens_before == first.tokens


def test_empty_part_is_well_formed(rows):
    part = pad_rows(rows, np.zeros(0, dtype=np.int64))
    assert {value.shape for value in part.values()} == {(0, WIDTH_MULTIPLE)}


def test_rows_are_padded_to_few_widths_but_never_beyond_what_the_model_reads(tiny_base):
    lengths = [3, 4, 9, 17, 30]
    texts = [" ".join(["w1"] * (n - 2)) for n in lengths]
    rows = tokenise(load_tokenizer(tiny_base), texts, None, 21)
    widths = [pad_rows(rows, np.array([i]))["input_ids"].shape[1] for i in range(len(texts))]
    assert widths == [8, 8, 16, 21, 21]


def test_seeds_differ_by_role_and_number():
    seeds = {derive_seed(1, "mask", 2), derive_seed(1, "mask", 3), derive_seed(2, "mask", 2)}
    assert len(seeds | {derive_seed(1, "order", 2), derive_seed(1, "mask", 2)}) == 4


def test_bad_rows_are_refused(tiny_base, labelled):
    with pytest.raises(ValueError, match="no texts"):
        tokenise(load_tokenizer(tiny_base), [], None, 8)
    with pytest.raises(ValueError, match="text_pair"):
        read_task_rows(labelled.drop_columns(["text_pair"]), "train")
    with pytest.raises(ValueError, match="empty"):
        read_task_rows(labelled.slice(0, 0), "train")
    mixed = labelled.set_column(2, "text_pair", [["w1"] + [None] * 95])
    with pytest.raises(ValueError, match="95 of 96"):
        read_task_rows(mixed, "train")
