"""How figures are drawn."""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib.figure import Figure

from gotd.reporting import drawing


@pytest.mark.parametrize(
    ("far", "ends"), [(9.8, True), (-20.0, True), (4.0, False), (np.nan, False)]
)
def test_an_axis_ends_where_one_number_is_far_from_all_others(far, ends):
    axis = Figure().subplots()
    axis.plot([0.5, 2.5, np.nan_to_num(far)])
    drawing.leave_far_out(axis, "y", [0.5, np.nan, 2.5], far, "none")
    low, high = axis.get_ylim()
    assert (low <= np.nan_to_num(far) <= high) != ends
    assert low < 0.5 < 2.5 < high
    assert [text.get_text() for text in axis.texts] == ([f"none: {far:.4g}"] if ends else [])
