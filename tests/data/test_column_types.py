import json

import pyarrow as pa
import pytest

from gotd.data.column_types import MOST_DEPTH, type_of


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ([1, None, -3], pa.int64()),
        ([1, 0.5, None], pa.float64()),
        ([2**53, 0.5], pa.float64()),
        ([-(2**53), 0.5], pa.float64()),
        ([2**53 + 1, 0.5], None),
        ([-(2**53) - 1, 0.5], None),
        ([2**64, 1], None),
        (["a", 1], None),
        (["a", None], pa.string()),
        ([None], pa.null()),
    ],
)
def test_a_type_of_values_changes_none_of_them(values, kind):
    assert type_of(values) == kind
    if kind is not None:
        assert pa.array(values, kind).to_pylist() == values


def test_values_that_are_nested_too_deep_have_no_type():
    def nested(depth):
        return json.loads("[" * depth + "1" + "]" * depth)

    assert type_of([nested(MOST_DEPTH - 2)]) is not None
    assert type_of([nested(MOST_DEPTH + 1)]) is None
