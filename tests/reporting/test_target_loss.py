"""The target loss has tables and tests of its own, in which less is better."""

import pytest

from gotd.reporting.cells import blocks
from gotd.reporting.report import write_report
from gotd.reporting.target_loss import loss_block, loss_figures, loss_tables

LOSSES = {"none": 3.0, "random": 2.99, "nearest": 2.9, "got_d": 2.8, "oracle": 2.75, "dsir": 2.85}


@pytest.fixture
def lossy(make_records):
    """Records with a loss beside their headline."""
    made = make_records(seeds=10)
    for number, record in enumerate(made):
        loss = LOSSES[record["axes"]["arm"]] + 0.001 * (number % 5)
        parts = {"target_loss/common_0": loss - 0.1, "target_loss/rare_0": loss + 0.1}
        record["metrics"] |= {"target_loss": loss, "target_loss_base": 3.0, **parts}
    return made


def test_records_without_a_loss_have_no_such_block(make_records):
    (block,) = blocks(make_records())
    assert loss_block(block) is None


def test_less_is_better_in_the_paired_tests(lossy):
    (block,) = blocks(lossy)
    losses = loss_block(block)
    assert losses is not None
    assert not losses.metric.higher_is_better
    scores, pairs, parts = loss_tables(losses)
    shown = {row[0]: row[1] for row in scores.rows}
    assert shown["got_d"].startswith("2.80")
    assert [n for n in parts.columns if n.startswith("target_loss/")]
    verdicts = {row[:2]: row[-1] for row in pairs.rows}
    assert "better" in verdicts["got_d", "none"]
    assert set(loss_figures(losses)) == {"target_loss", "target_loss_differences"}
    # The block of the headline is as it was.
    assert block.metric.higher_is_better


def test_a_cell_without_a_loss_is_not_averaged(lossy):
    lossy[0]["metrics"]["target_loss"] = None
    (block,) = blocks(lossy)
    losses = loss_block(block)
    assert losses is not None
    assert len(losses.cells) == len(block.cells) - 1


def test_an_experiment_whose_headline_is_the_loss_has_no_second_table(lossy):
    for record in lossy:
        metrics = record["metrics"]
        metrics |= {
            "headline": metrics["target_loss"],
            "headline_name": "target_loss",
            "headline_higher_is_better": False,
        }
    (block,) = blocks(lossy)
    assert loss_block(block) is None


def test_the_report_holds_both(lossy, tmp_path):
    write_report(lossy, tmp_path, paper=None, command="gotd report")
    page = (tmp_path / "tables" / "glue.md").read_text("utf-8")
    assert page.index("### Scores") < page.index("### Target loss") < page.index("by part")
    assert "target_loss" not in page.split("### Target loss")[0].split("### Other metrics")[-1]
    assert (tmp_path / "figures" / "glue_target_loss.svg").exists()
