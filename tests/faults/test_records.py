"""Records of others that are not as they should be (K10)."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from gotd.reporting.records import RecordError, validate

LINE = next((Path(__file__).parents[2] / "results" / "records").glob("*.jsonl")).open().readline()


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("cost", {"elapsed_s": "long"}),
        ("cost", {"stages_s": {"pool": "long"}}),
        ("cost", {"stages_s": [1]}),
        ("cost", {"hardware": "fast"}),
        ("cost", {"code": ["sha"]}),
        ("cost", [1]),
        ("selection", {"rows": 1, "distinct_rows": 1, "first_rows": [1, 2]}),
    ],
)
def test_a_field_of_another_kind_is_named(field, value):
    """B28: a traceback in the tables."""
    record = json.loads(LINE)
    validate(record)
    with pytest.raises(RecordError, match=f"field '{field}"):
        validate(record | {field: value})
