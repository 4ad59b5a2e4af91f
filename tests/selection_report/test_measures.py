import json
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest

from gotd.data.rows import Rows
from gotd.engine.local import LocalEngine
from gotd.selection_report import measures
from gotd.selection_report.measures import Measures, coverage, domain_shares, jaccard, plain_excerpt
from gotd.selection_report.rows import blocks, locate

TEXTS = [f"text number {i}" for i in range(16)]
TEXTS[3] = "Text, NUMBER: 2!"
TEXTS[5] = '<script>alert("x")</script>\n\x1b[31m & ' + "é" * 500
POOL = Rows(
    pa.array([f"c{i:02d}" for i in range(16)]),
    pa.array(TEXTS),
    pa.array(["law"] * 12 + ["verse"] * 4),
    np.arange(1, 17, dtype=np.float32)[:, None],
)
TARGET = Rows(
    pa.array(["t0", "t1"]),
    pa.array(["", ""]),
    pa.array(["verse", "prose"]),
    np.array([[15.5], [1.0]], dtype=np.float32),
)


FACTS = {
    "rows": [16],
    "domains": {"law": 12, "verse": 4},
    "length_chars": [[len(text), 1] for text in sorted(TEXTS, key=len)],
}


def ranked(numbers, candidates=(POOL,)):
    ids = pa.array([f"c{i:02d}" for i in numbers])
    return locate(ids, np.arange(len(numbers), dtype=float), list(candidates), LocalEngine())


def summary(*numbers, candidates=(POOL,), target=TARGET, under_covered=()):
    counts = Measures()
    for block in blocks(ranked(numbers, candidates), list(candidates), len(numbers)):
        counts.add(block)
    return counts.summary(FACTS, domain_shares(target), under_covered)


def covered(*numbers, candidates=(POOL,), target=TARGET):
    return coverage(ranked(numbers, candidates), len(numbers), list(candidates), target, 5)


def test_counts_are_beside_those_of_a_random_selection():
    report = summary(12, 13, 0, 14, under_covered=["verse"])
    assert report["rows"] == report["distinct_rows"] == 4
    assert report["domains"] == {"verse": 3, "law": 1}
    assert report["expected_domains"] == {"law": 3.0, "verse": 1.0}
    assert report["target_domains"] == {"prose": 0.5, "verse": 0.5}
    assert report["under_covered_share"] == 0.75
    json.dumps(report, allow_nan=False)


def test_repeated_rows_count_in_the_domains_but_once_as_distinct():
    report = summary(12, 12, 0)
    assert (report["rows"], report["distinct_rows"]) == (3, 2)
    assert report["domains"] == {"verse": 2, "law": 1}
    assert report["duplicate_texts"] == 0


def test_rows_with_the_text_of_a_target_are_counted():
    """C19: chosen copies of the target were not reported."""
    counts = Measures()
    for block in blocks(ranked([2, 3, 4, 6]), [POOL], 4):
        counts.add(block)
    texts = pa.array(["TEXT number 2.", "text number 6", "…", "another"])
    target = Rows(pa.array(list("abcd")), texts, None, None)
    assert counts.copies_of(target) == 3  # 2, its copy 3, and 6
    assert counts.copies_of(TARGET) == 0


def test_texts_that_differ_in_case_and_punctuation_are_duplicates():
    assert summary(2, 3, 4)["duplicate_texts"] == 1
    assert summary(2, 4)["duplicate_texts"] == 0


def test_lengths_are_quantiles_in_characters():
    lengths = summary(0, 1, 2)["length_chars"]
    assert lengths["selected"]["q50"] == len("text number 0")
    assert lengths["pool"]["q95"] > 14
    counts = [[3, 2], [5, 1], [9, 4]]
    values = np.repeat(*np.array(counts).T)
    for name, value in measures.quantiles(counts).items():
        assert value == pytest.approx(np.quantile(values, int(name[1:]) / 100))


def test_overlap_is_shared_over_all_distinct_ids():
    assert jaccard(pa.array(["a", "a", "b"]), pa.array(["b", "c"])) == pytest.approx(1 / 3)


def test_coverage_is_the_distance_from_each_target_to_the_selection():
    near = covered(14, 1)
    assert near["mean_distance"] == pytest.approx((0.5 + 1.0) / 2)
    assert near["mean_distance_random"] > near["mean_distance"]
    one_sided = covered(14, 15)
    assert one_sided["mean_distance"] == pytest.approx((0.5 + 14) / 2)
    assert one_sided["share_nearer"] <= 0.5


def test_rows_of_zeros_are_near_to_nothing():
    """The encoder could not read them: to a cost, they would be near to most rows."""
    vectors = np.array(POOL.embeddings)
    vectors[[3, 14]] = 0.0
    pool = replace(POOL, embeddings=vectors)
    assert covered(15, 14, 3, candidates=(pool,))["mean_distance"] == pytest.approx((0.5 + 15) / 2)
    near = np.array([[15.5], [0.0], [1.0]], dtype=np.float32)
    more = Rows(pa.array(["t0", "t1", "t2"]), pa.array([""] * 3), None, near)
    found = covered(14, 1, target=more)
    assert found["mean_distance"] == covered(14, 1)["mean_distance"]
    assert found["targets"] == 2
    assert covered(3, 14, candidates=(pool,)) is None


def test_what_cannot_be_known_is_none():
    bare = replace(POOL, domains=None, embeddings=None)
    report = summary(1, candidates=(bare,), target=replace(TARGET, domains=None))
    assert report["target_domains"] is None
    assert report["under_covered_share"] is None
    assert covered(1, candidates=(bare,)) is None


def test_first_rows_are_plain_text():
    shown = summary(5, 1)["first_rows"]
    assert (shown[0]["rank"], shown[0]["id"], shown[0]["domain"]) == (1, "c05", "law")
    excerpt = shown[0]["excerpt"]
    assert excerpt.startswith('&lt;script&gt;alert("x")&lt;/script&gt; [31m &amp; é')
    assert excerpt.endswith("…")
    assert plain_excerpt("a\u202eb\tc") == "a b c"


def test_shards_do_not_change_the_report():
    parts = [
        Rows(POOL.ids[a:b], POOL.texts[a:b], POOL.domains[a:b], POOL.embeddings[a:b])
        for a, b in ((0, 5), (5, 16))
    ]
    assert summary(14, 2, 7, 3, candidates=parts) == summary(14, 2, 7, 3)
    assert covered(14, 2, 7, 3, candidates=parts) == covered(14, 2, 7, 3)


def test_an_id_that_is_not_in_the_pool_is_named():
    with pytest.raises(ValueError, match="'c99'"):
        ranked((1, 99))
