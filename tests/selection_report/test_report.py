import json
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
from gotd.selection_report.report import coverage, jaccard, plain_excerpt, selection_report

from gotd.data.rows import Rows

TEXTS = [f"text number {i}" for i in range(16)]
TEXTS[3] = "Text, NUMBER: 2!"
TEXTS[5] = '<script>alert("x")</script>\n\x1b[31m & ' + "é" * 500
POOL = Rows(
    pa.array([f"c{i:02d}" for i in range(16)]),
    pa.array(TEXTS),
    pa.array(["law"] * 12 + ["verse"] * 4),
    np.arange(16, dtype=np.float32)[:, None],
)
TARGET = Rows(
    pa.array(["t0", "t1"]),
    pa.array(["", ""]),
    pa.array(["verse", "prose"]),
    np.array([[14.5], [0.0]], dtype=np.float32),
)


def rows(*numbers):
    return pa.table(
        {"id": [f"c{i:02d}" for i in numbers], "score": np.arange(len(numbers), dtype=float)}
    )


def test_counts_stand_beside_what_chance_would_give():
    report = selection_report(rows(12, 13, 0, 14), [POOL], TARGET, under_covered=["verse"])
    assert report["rows"] == report["distinct_rows"] == 4
    assert report["domains"] == {"verse": 3, "law": 1}
    assert report["expected_domains"] == {"law": 3.0, "verse": 1.0}
    assert report["target_domains"] == {"prose": 0.5, "verse": 0.5}
    assert report["under_covered_share"] == 0.75
    json.dumps(report, allow_nan=False)


def test_repeated_rows_count_in_the_domains_but_once_as_distinct():
    report = selection_report(rows(12, 12, 0), [POOL], TARGET)
    assert (report["rows"], report["distinct_rows"]) == (3, 2)
    assert report["domains"] == {"verse": 2, "law": 1}
    assert report["duplicate_texts"] == 0


def test_texts_that_differ_in_case_and_punctuation_are_duplicates():
    assert selection_report(rows(2, 3, 4), [POOL], TARGET)["duplicate_texts"] == 1
    assert selection_report(rows(2, 4), [POOL], TARGET)["duplicate_texts"] == 0


def test_lengths_are_quantiles_in_characters_and_words():
    lengths = selection_report(rows(0, 1, 2), [POOL], TARGET)["lengths"]
    assert lengths["selected"]["chars"]["q50"] == len("text number 0")
    assert lengths["selected"]["words"]["q95"] == 3
    assert lengths["pool"]["chars"]["q95"] > 14


def test_overlap_is_shared_over_all_distinct_ids():
    assert jaccard(pa.array(["a", "a", "b"]), pa.array(["b", "c"])) == pytest.approx(1 / 3)
    others = {"random": pa.array(["c00", "c01", "c02"]), "same": pa.array(["c00", "c01"])}
    overlap = selection_report(rows(0, 1), [POOL], TARGET, others=others)["overlap"]
    assert overlap == {"random": pytest.approx(2 / 3), "same": 1.0}


def test_coverage_is_the_distance_from_each_target_to_the_selection():
    found = coverage(pa.array(["c14", "c01"]), [POOL], TARGET, 0)
    assert found["mean_distance"] == pytest.approx((0.5 + 1.0) / 2)
    assert found["mean_distance_random"] > found["mean_distance"]
    one_sided = coverage(pa.array(["c14", "c15"]), [POOL], TARGET, 0)
    assert one_sided["mean_distance"] == pytest.approx((0.5 + 14) / 2)
    assert one_sided["share_nearer"] <= 0.5


def test_what_cannot_be_known_is_none():
    bare = replace(POOL, domains=None, embeddings=None)
    report = selection_report(rows(1), [bare], replace(TARGET, domains=None))
    for field in ("domains", "expected_domains", "target_domains", "under_covered_share"):
        assert report[field] is None
    assert report["coverage"] is None


def test_first_rows_are_plain_text():
    shown = selection_report(rows(5, 1), [POOL], TARGET, first=1)["first_rows"]
    assert len(shown) == 1
    assert (shown[0]["rank"], shown[0]["id"], shown[0]["domain"]) == (1, "c05", "law")
    excerpt = shown[0]["excerpt"]
    assert excerpt.startswith("&lt;script&gt;alert(&quot;x&quot;)&lt;/script&gt; [31m &amp; é")
    assert excerpt.endswith("…")
    assert plain_excerpt("a\u202eb\tc") == "a b c"


def test_shards_do_not_change_the_report():
    parts = [
        Rows(POOL.ids[a:b], POOL.texts[a:b], POOL.domains[a:b], POOL.embeddings[a:b])
        for a, b in ((0, 5), (5, 16))
    ]
    chosen = rows(14, 2, 7, 3)
    assert selection_report(chosen, parts, TARGET) == selection_report(chosen, [POOL], TARGET)


def test_an_id_that_is_not_in_the_pool_is_named():
    with pytest.raises(ValueError, match="'c99'"):
        selection_report(rows(1, 99), [POOL], TARGET)
