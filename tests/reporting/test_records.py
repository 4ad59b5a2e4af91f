import json

import pytest

from gotd.reporting.records import (
    FIELDS,
    RecordError,
    fingerprint,
    merge,
    read_jsonl,
    to_line,
    validate,
    write_jsonl,
)


def test_records_round_trip_in_canonical_form(tmp_path, make_records):
    records = make_records(seeds=2)
    path = tmp_path / "deep" / "glue.jsonl"
    write_jsonl(records, path)
    assert read_jsonl(path) == records
    shuffled = [dict(reversed(r.items())) for r in records]
    write_jsonl(shuffled, tmp_path / "again.jsonl")
    assert (tmp_path / "again.jsonl").read_bytes() == path.read_bytes()
    assert list(json.loads(path.read_text().splitlines()[0])) == list(FIELDS)
    assert not list(tmp_path.rglob("*.part"))


@pytest.mark.parametrize(
    ("path", "value", "field"),
    [
        (("schema_version",), 2, "schema_version"),
        (("key",), "", "key"),
        (("status",), "finished", "status"),
        (("axes", "seed"), "1", "axes.seed"),
        (("axes", "seed"), True, "axes.seed"),
        (("axes", "budget"), -1, "axes.budget"),
        (("axes", "task"), None, "axes.task"),
        (("metrics", "headline"), float("nan"), "metrics.headline"),
        (("metrics", "headline"), None, "metrics.headline"),
        (("metrics", "headline_name"), 3, "metrics.headline_name"),
        (("metrics", "domain/rare_0"), "high", "metrics.domain/rare_0"),
        (("selection", "distinct_rows"), 401, "selection.distinct_rows"),
        (("selection", "under_covered_share"), 1.5, "selection.under_covered_share"),
        (("curves", "loss"), [[1, 2, 3]], "curves.loss"),
        (("error",), {"type": "E", "message": "m"}, "error"),
        (("surprise",), 1, "surprise"),
    ],
)
def test_a_bad_field_is_named_with_file_and_line(tmp_path, record, path, value, field):
    good = record("cola", "got_d", 1, score=0.5)
    bad = json.loads(json.dumps(good))
    place = bad
    for name in path[:-1]:
        place = place[name]
    place[path[-1]] = value
    file = tmp_path / "r.jsonl"
    file.write_text(to_line(good) + "\n\n" + json.dumps(bad) + "\n")
    with pytest.raises(RecordError) as caught:
        read_jsonl(file)
    message = str(caught.value)
    assert "r.jsonl, line 3" in message
    assert f"'{field}'" in message


def test_a_missing_field_and_half_a_line_are_named(tmp_path, record):
    good = record("cola", "got_d", 1, score=0.5)
    del good["axes"]
    with pytest.raises(RecordError, match="'axes' is missing"):
        validate(good)
    file = tmp_path / "r.jsonl"
    file.write_text('{"schema_version": 1, "key')
    with pytest.raises(RecordError, match=r"line 1: not JSON .*delete that line"):
        read_jsonl(file)
    file.write_bytes(b"\n\xff\n")
    with pytest.raises(RecordError, match=r"r.jsonl, line 2: not UTF-8"):
        read_jsonl(file)
    with pytest.raises(FileNotFoundError, match="run an experiment first"):
        read_jsonl(tmp_path / "none.jsonl")


def test_a_failed_record_holds_its_error_and_no_score(record, failed):
    good = failed(record("cola", "got_d", 1, score=0.5))
    validate(good)
    with pytest.raises(RecordError, match=r"error\.message"):
        validate({**good, "error": {"type": "E"}})
    with pytest.raises(RecordError, match="'metrics' is .*at most 0 items"):
        validate({**good, "metrics": {"accuracy": 0.5}})


def test_a_refused_write_leaves_the_old_file(tmp_path, record):
    path = tmp_path / "r.jsonl"
    good = record("cola", "got_d", 1, score=0.5)
    write_jsonl([good], path)
    before = path.read_bytes()
    with pytest.raises(RecordError, match="record 2"):
        write_jsonl([good, {**good, "status": "maybe"}], path)
    assert path.read_bytes() == before


def test_a_killed_write_leaves_the_old_file(tmp_path, record, monkeypatch):
    path = tmp_path / "r.jsonl"
    write_jsonl([record("cola", "got_d", 1, score=0.5)], path)
    before = path.read_bytes()

    def full(descriptor):
        raise OSError("no space left on device")

    monkeypatch.setattr("gotd.storage.files.os.fsync", full)
    with pytest.raises(OSError, match="no space"):
        write_jsonl([record("cola", "got_d", 2, score=0.6)], path)
    assert path.read_bytes() == before


def test_merge_keeps_the_latest_try_of_each_key(record, failed):
    done = record("cola", "got_d", 3, score=0.5)  # started after the failed try
    first_try = failed(done)
    other = record("cola", "none", 1, score=0.4)
    assert merge([done, other], [first_try]) == merge([first_try], [other, done])
    assert {r["status"] for r in merge([done, other], [first_try])} == {"done"}
    untimed = {**done, "cost": {}}
    for other_cost in ({}, first_try["cost"]):  # a kill may have left the record without its cost
        assert merge([untimed], [{**first_try, "cost": other_cost}])[0]["status"] == "done"


def test_merge_orders_seeds_as_numbers(record):
    records = [record("cola", "none", seed, score=0.5) for seed in (10, 9, 2)]
    assert [r["axes"]["seed"] for r in merge(records)] == [2, 9, 10]


def test_fingerprint_ignores_order_and_cost_and_nothing_else(make_records):
    records = make_records(seeds=2)
    print_ = fingerprint(records)
    slower = [{**r, "cost": {"elapsed_s": 99.0}} for r in reversed(records)]
    assert fingerprint(slower) == print_
    moved = [
        {**records[0], "metrics": {**records[0]["metrics"], "headline": 0.123}},
        *records[1:],
    ]
    assert fingerprint(moved) != print_
    assert fingerprint(records[1:]) != print_
