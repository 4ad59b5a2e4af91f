"""Rows left out before scoring: which, why, and that nothing else is lost."""

from __future__ import annotations

import unicodedata
from itertools import combinations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gotd.data.columns import Columns
from gotd.data.inputs import InMemory
from gotd.data.json_lines import table_of
from gotd.data.left_out import duplicates
from gotd.data.left_out.ngrams import ngrams
from gotd.data.left_out.overlap import WithoutOverlap, leave_out_overlap
from gotd.data.left_out.record import LeftOut, masks, reasons, removed
from gotd.data.left_out.where import Where, leave_out_filtered
from gotd.data.rows import Rows
from gotd.data.words import words


def shards(texts, size=4):
    ids = [f"r{n}" for n in range(len(texts))]
    return [
        Rows(pa.array(ids[at : at + size]), pa.array(texts[at : at + size], pa.large_string()))
        for at in range(0, len(texts), size)
    ]


def part(texts, label="test", **columns):
    return InMemory(pa.table({"text": texts, **columns}), label, Columns())


def gone(left_out):
    return np.flatnonzero(~left_out.competes).tolist()


# Duplicates ----------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(
    texts=st.lists(st.text(alphabet="aAé\u0301 \u3000\nﬁfi", max_size=4), min_size=1, max_size=12),
    at_once=st.sampled_from([1, 3, 100]),
)
def test_the_first_of_equal_texts_is_left(tmp_path_factory, texts, at_once):
    left_out = LeftOut(shards(texts))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(duplicates, "PART_ROWS", at_once)
        duplicates.leave_out_duplicates(left_out, tmp_path_factory.mktemp("work"))
    seen, expected = set(), []
    for row, text in enumerate(texts):
        plain = " ".join(unicodedata.normalize("NFKC", text).lower().split())
        if plain in seen:
            expected.append(row)
        seen.add(plain)
    assert gone(left_out) == expected


def test_each_copy_names_the_first_text_that_it_repeats(tmp_path, monkeypatch):
    texts = ["b", "a", "c", "A ", "b", "a", "c", "d"]
    pool = shards(texts, 3)
    left_out = LeftOut(pool)
    monkeypatch.setattr(duplicates, "PART_ROWS", 2)
    duplicates.leave_out_duplicates(left_out, tmp_path)
    left_out.write(tmp_path)
    found = pa.concat_tables(removed(tmp_path, pool)).to_pylist()
    assert [(row["id"], row["because"]) for row in found] == [
        ("r3", "repeats r1"),
        ("r4", "repeats r0"),
        ("r5", "repeats r1"),
        ("r6", "repeats r2"),
    ]


def random_texts(count, length, seed=0):
    random = np.random.default_rng(seed)
    vocabulary = [f"w{n}" for n in range(3000)]
    return [" ".join(random.choice(vocabulary, size=length)) for _ in range(count)]


def test_near_copies_are_those_of_the_exact_similarity(tmp_path):
    texts = random_texts(30, 120)
    random = np.random.default_rng(1)
    for number in range(30):
        changed = texts[number].split()
        for place in random.choice(120, size=int(random.integers(0, 12)), replace=False):
            changed[place] = "other"
        texts.append(" ".join(changed))
    left_out = LeftOut(shards(texts, 7))
    duplicates.leave_out_near_duplicates(left_out, tmp_path)
    sets = [set(zip(*(t.split()[i:] for i in range(5)), strict=False)) for t in texts]
    found = set(gone(left_out))
    for one, other in combinations(range(60), 2):
        similarity = len(sets[one] & sets[other]) / len(sets[one] | sets[other])
        if similarity > 0.92:
            assert other in found
        if other == one + 30 and similarity < 0.68:  # its only likely neighbour
            assert other not in found
    assert not found & set(range(30))


def test_rows_without_a_word_and_unlike_rows_stay(tmp_path):
    left_out = LeftOut(shards(["!", "?", "", *random_texts(9, 30, 5), "one two", "two one"]))
    duplicates.leave_out_near_duplicates(left_out, tmp_path)
    assert gone(left_out) == []


# Overlap -------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(
    texts=st.lists(st.text(alphabet="ab ", max_size=12), min_size=1, max_size=6),
    n=st.integers(1, 4),
)
def test_ngrams_are_equal_if_their_words_are(texts, n):
    found = ngrams(texts, n)
    expected = []
    for number, text in enumerate(texts):
        own = words(text)
        if own:
            expected += [(number, tuple(own[i : i + n])) for i in range(max(1, len(own) - n + 1))]
    assert found.text.tolist() == [number for number, _ in expected]
    for one, other in combinations(range(len(expected)), 2):
        same = expected[one][1] == expected[other][1]
        assert (found.hashes[one] == found.hashes[other]) == same


def test_rows_with_thirteen_words_of_a_test_set_are_left_out():
    words_of = random_texts(1, 40)[0].split()
    test = " ".join(words_of)
    texts = [
        "before, " + " ".join(words_of[5:18]).upper() + " after",
        "before " + " ".join(words_of[5:17]) + " after",
        "A short answer!",
        "a short answer and more",
        *random_texts(3, 50, 2),
    ]
    left_out = LeftOut(shards(texts, 3))
    leave_out_overlap(left_out, [part([test, "a short answer"])])
    assert gone(left_out) == [0, 2]


def test_a_part_without_overlap_says_what_it_leaves_out_and_nothing_else(caplog):
    words = " ".join(f"w{n}" for n in range(13))
    tests = part([f"before {words} after"], "answers")
    given = part([f"a {words}", "short text", words.replace("w7", "x7")], "pool")
    clean = WithoutOverlap(given, tests, {"rule": 1})
    kept = pa.concat_tables(list(clean.pieces()))["text"].to_pylist()
    assert kept == ["short text", words.replace("w7", "x7")]
    (said,) = [record.getMessage() for record in caplog.records]
    assert said.startswith("pool: 1 of 3 rows share 13 words in a row with the rows of answers")
    caplog.clear()
    again = WithoutOverlap(part(kept, "pool"), tests, {"rule": 1})
    assert pa.concat_tables(list(again.pieces()))["text"].to_pylist() == kept
    assert not caplog.records


def test_the_record_names_the_reason_and_what_matched(tmp_path):
    texts = ["one two", "One  two", "three", "a short answer", "four"]
    pool = shards(texts, 2)
    left_out = LeftOut(pool)
    leave_out_overlap(left_out, [part(["a short answer"])])
    duplicates.leave_out_duplicates(left_out, tmp_path)
    left_out.write(tmp_path)
    assert reasons(tmp_path) == {"overlap": 1, "duplicate": 1}
    assert [mask.tolist() for mask in masks(tmp_path, [2, 2, 1])] == [
        [True, False],
        [True, False],
        [True],
    ]
    assert pa.concat_tables(removed(tmp_path, pool)).to_pylist() == [
        {"id": "r1", "reason": "duplicate", "because": "repeats r0", "text": "One  two"},
        {
            "id": "r3",
            "reason": "overlap",
            "because": "test: test#1 has: a short answer",
            "text": "a short answer",
        },
    ]


def test_a_row_that_is_left_out_keeps_no_copy_of_it_out(tmp_path):
    left_out = LeftOut(shards(["a b", "a b", "a b"]))
    left_out.add(np.array([0]), "filtered", ["n"])
    duplicates.leave_out_duplicates(left_out, tmp_path)
    assert gone(left_out) == [0, 2]


# Conditions ----------------------------------------------------------------------------

ROWS = [
    {"lang": "en", "n": 1, "ok": True, "meta": {"by": "a"}, "a b": 1, "mixed": 1},
    {"lang": "de", "n": 2.5, "ok": False, "meta": {"by": "b"}, "a b": 2, "mixed": "x"},
    {"lang": None, "n": None, "ok": None, "meta": None, "a b": None, "mixed": None},
    {"lang": "fr", "n": -3, "ok": True, "meta": {"by": "a", "at": 1}, "a b": 2, "mixed": [1]},
]


@pytest.mark.parametrize(
    ("condition", "rows"),
    [
        ("lang == 'en'", [0]),
        ("'en' == lang", [0]),
        ("lang != 'en'", [1, 3]),
        ("lang in ('en', 'fr')", [0, 3]),
        ("lang not in ['en', 'fr']", [1]),
        ("lang is None", [2]),
        ("lang is not None and not lang == 'de'", [0, 3]),
        ("not lang == 'de'", [0, 3]),
        ("n > 1", [1]),
        ("-3 <= n < 2", [0, 3]),
        ("n == -3 or ok == True and lang == 'en'", [0, 3]),
        ("ok", [0, 3]),
        ("not ok", [1]),
        ("meta.by == 'a'", [0, 3]),
        ("col('a b') == 2", [1, 3]),
        ("mixed == 'x'", [1]),
        ("absent is None", [0, 1, 2, 3]),
        ("absent == 'x' or n == 1", [0]),
    ],
)
def test_a_condition_holds_where_python_would_say_so(condition, rows):
    found = Where(condition).holds(table_of(ROWS), "rows")
    assert np.flatnonzero(found).tolist() == rows


@pytest.mark.parametrize(
    ("condition", "rows"),
    [
        ("meta.by == 'a'", [0]),
        ("meta.at.hour >= 7", [1]),
        ("meta.at.hour is None", [0, 2]),
        ("meta.by.first is None", [0, 1, 2]),
        ("meta.absent is None", [0, 1, 2]),
    ],
)
def test_fields_of_a_nested_column_are_those_of_its_objects(condition, rows):
    """As Parquet files have them."""
    values = [{"by": "a", "at": None}, {"by": "b", "at": {"hour": 7}}, None]
    table = pa.table({"meta": pa.array(values)})
    assert np.flatnonzero(Where(condition).holds(table, "rows")).tolist() == rows


def test_a_number_in_a_column_of_texts_is_compared_as_a_number():
    rows = pa.table({"n": ["1", "20", "", "x"]})
    assert Where("n > 3").holds(rows, "rows").tolist() == [False, True, False, False]
    assert Where("n == '1'").holds(rows, "rows").tolist() == [True, False, False, False]


@pytest.mark.parametrize(
    ("condition", "rows"),
    [
        ("m == '1'", [1]),
        ("'1' == m", [1]),
        ("m != '1'", [0, 2, 3, 5]),
        ("m in ('1', '[1]', 'true')", [1]),
        ("m not in ('1', 'x')", [0, 2, 3, 5]),
        ("m > '0'", [1]),
        ("'a' > m", [1]),
        ("m <= '1'", [1]),
        ("not m > '0'", [0, 2, 3, 5]),
        ("m is None", [4]),
        ("o.m == '1'", [1]),
    ],
)
def test_a_text_is_equal_to_a_text_alone(condition, rows):
    values = [1, "1", 1.5, True, None, [1]]
    table = table_of([{"m": value, "o": {"m": value}} for value in values])
    assert np.flatnonzero(Where(condition).holds(table, "rows")).tolist() == rows


LARGE = 2**63 + 5


@pytest.mark.parametrize(
    ("condition", "values", "rows"),
    [
        (f"n == {LARGE}", [LARGE, LARGE + 1, 7, None], [0]),
        (f"n > {LARGE}", [LARGE, LARGE + 1, 7, None], [1]),
        (f"n in ({LARGE}, 7)", [LARGE, LARGE + 1, 7, None], [0, 2]),
        ("n > 7", [LARGE, LARGE + 1, 7, None], [0, 1]),
        ("n > -1", [LARGE, 7], [0, 1]),
        ("n > 7.5", [LARGE, 7, None], [0]),
        ("n in (7.0, 8)", [LARGE, 7, None], [1]),
        (f"n < {LARGE}", [-(2**63), 2**63 - 1, None], [0, 1]),
        (f"n == {2**60 + 1}", [2**60, 2**60 + 1], [1]),
        (f"n == -{2**63}", [-(2**63), 1 - 2**63], [0]),
        ("n < 0.5", [2**60, -1, 2**31], [1]),
        (f"n < {LARGE}", [0.5, 1e19, None], [0]),
        (f"n < {LARGE}", ["5", "1e19"], [0]),
    ],
)
def test_integers_of_64_bits_are_compared_exactly(condition, values, rows):
    kind = pa.uint64() if LARGE in values else None
    table = pa.table({"n": pa.array(values, kind)})
    assert np.flatnonzero(Where(condition).holds(table, "rows")).tolist() == rows


def test_a_larger_integer_and_a_large_column_of_another_type_are_named():
    with pytest.raises(ValueError, match=rf"--where 'n == {2**64}' has an integer of more than 64"):
        Where(f"n == {2**64}")
    with pytest.raises(ValueError, match="--where .* does not fit the columns of rows: n"):
        Where("n == 'x'").holds(pa.table({"n": pa.array([LARGE], pa.uint64())}), "rows")


@pytest.mark.parametrize(
    "wrong",
    [
        "", "lang ==", "lang = 'en'", "__import__('os')", "lang.__class__()", "open('x') == 1",
        "(lambda: 1)() == n", "[n for n in (1,)] == n", "1 == 1", "lang == None", "lang in 'en'",
        "n in ()", "n + 1 > 2", "f'{n}' == '1'", "lang is 'en'", "n if ok else n", "True",
    ],
)  # fmt: skip
def test_nothing_else_is_a_condition(wrong):
    with pytest.raises(ValueError, match="--where"):
        Where(wrong)


@pytest.mark.parametrize("empty", ["", "  \n"])
def test_an_empty_condition_is_named(empty):
    with pytest.raises(ValueError, match=r"--where is empty; .*or leave the option out"):
        Where(empty)


@pytest.mark.parametrize(
    ("condition", "says"),
    [
        ("text.lang == 'x'", "no candidate has a field 'text.lang'; column 'text' holds"),
        ("lang == 'x' or meta.lnag == 'x'", "no candidate has a field 'meta.lnag'; .*struct<lang"),
        ("more.lang.x is None", "no candidate has a field 'more.lang.x'"),
    ],
)
def test_a_field_that_no_row_has_is_named(condition, says):
    more = {"lang": ["x", "y"], "meta": [{"lang": "x"}, None], "more": [{"lang": 1}, {"lang": "x"}]}
    one, other = part(["a"], **{k: v[:1] for k, v in more.items()}), part(["b"], lang=["y"])
    left_out = LeftOut([Rows(pa.array(["test#1", "test#2"]), pa.array(["a", "b"]))])
    with pytest.raises(ValueError, match=says):
        leave_out_filtered(left_out, Where(condition), [one, other])


def test_deep_nesting_is_one_error():
    with pytest.raises(ValueError, match="--where"):
        Where("not " * 100_000 + "ok")


def test_a_type_that_does_not_fit_is_named():
    with pytest.raises(ValueError, match=r"does not fit the columns of rows: n \(double\)"):
        Where("n == 'x'").holds(pa.table({"n": [1.0]}), "rows")


@pytest.mark.parametrize(
    ("values", "listed"),
    [([1, 2], "(True,)"), ([1, 2], "('1',)"), ([1.0], "('1',)"), ([True, False], "(1, 0)"),
     ([True, False], "('true',)"), ([1, 2], "('1', 'x')")],
)  # fmt: skip
@pytest.mark.parametrize("sign", ["in", "not in"])
def test_values_of_a_list_are_of_the_type_of_the_column(values, listed, sign):
    """As with ``==``; they were cast to it, so 1 was True."""
    for condition in (f"c {sign} {listed}", f"c == {listed.strip('()').split(',')[0]}"):
        with pytest.raises(ValueError, match="does not fit the columns of rows: c"):
            Where(condition).holds(pa.table({"c": values}), "rows")


@pytest.mark.parametrize(
    ("values", "condition", "expected"),
    [
        ([1, 300, None], "c in (1, 2.5, 99999999999)", [True, False, False]),
        ([1, 300, None], "c not in (1, 2.5)", [False, True, False]),
        ([1, 300, None], "not (c in (1, 2.5))", [False, True, True]),
        ([1.5, 2.0, None], "c in (2,)", [False, True, False]),
        ([True, False, None], "c in (True,)", [True, False, False]),
        (["1", "true", None], "c in ('1',)", [True, False, False]),
        (["1", "true", None], "c in (True,)", [False, True, False]),  # as texts of CSV are
        ([None, None], "c in (True,)", [False, False]),
    ],
)
def test_a_list_of_values_holds_where_one_is_equal(values, condition, expected):
    assert Where(condition).holds(pa.table({"c": values}), "rows").tolist() == expected


def test_a_column_that_is_nowhere_is_named():
    texts = ["a", "b"]
    with pytest.raises(ValueError, match="no column 'langg'; they have text, lang"):
        leave_out_filtered(
            LeftOut(shards(texts)), Where("langg == 'x'"), [part(texts, lang=["x", "y"])]
        )
    left_out = LeftOut([Rows(pa.array(["test#1", "test#2"]), pa.array(texts))])
    leave_out_filtered(left_out, Where("lang == 'x'"), [part(texts, lang=["x", "y"])])
    assert gone(left_out) == [1]
