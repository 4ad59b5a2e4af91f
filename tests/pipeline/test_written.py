"""What a command writes, and what it leaves as it was."""

import datasets
import pyarrow as pa
import pytest
from omegaconf import OmegaConf

from gotd.data.columns import Columns
from gotd.pipeline.formats import DATASET, Block, Layout, open_writer
from gotd.pipeline.output import Output
from gotd.pipeline.record import recorded_config
from gotd.storage.keys import RUN_ONLY


@pytest.mark.parametrize("shown", [True, False])
def test_progress_bars_of_data_sets_stay_as_they_were(tmp_path, shown):
    before = datasets.is_progress_bar_enabled()
    (datasets.enable_progress_bars if shown else datasets.disable_progress_bars)()
    try:
        rows = pa.table({"id": ["a"], "text": ["x"]})
        with open_writer(tmp_path / "chosen", DATASET) as writer:
            writer.write(Block(rows, 0, None, Layout(Columns(), prefixed=False)))
        assert datasets.is_progress_bar_enabled() == shown
    finally:
        (datasets.enable_progress_bars if before else datasets.disable_progress_bars)()
    assert datasets.load_from_disk(str(tmp_path / "chosen")).to_dict() == rows.to_pydict()


def test_two_runs_never_write_one_output(tmp_path):
    output = Output(tmp_path / "chosen")
    refused = pytest.raises(ValueError, match="another gotd select is writing .*chosen")
    with output.claimed([], tmp_path / "store"), refused, output.claimed([], tmp_path / "store"):
        pass
    with output.claimed([], tmp_path / "store"):
        pass


def test_a_record_has_the_settings_that_change_a_number_at_any_depth():
    only = sorted(RUN_ONLY)[0]
    config = OmegaConf.create(
        {
            "source": {"name": "folder", "path": "/somewhere"},
            "selector": {"arm": "got_d", "about": "words", "method": {only: 1, "k": 2}},
            only: 3,
            "seed": 1,
        }
    )
    assert recorded_config(config) == {
        "source": {"name": "folder"},
        "selector": {"arm": "got_d", "method": {"k": 2}},
        "seed": 1,
    }
