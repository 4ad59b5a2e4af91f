"""`gotd select` says which part of a selection is proven, and proves it on request."""

import json

import numpy as np
import pyarrow.parquet as pq
import pytest

from gotd.cli.main import main


@pytest.mark.parametrize("more", [[], ["--prove"]])
def test_the_proven_share_is_in_manifest_and_report(given, tmp_path, more):
    out = tmp_path / "chosen"
    arguments = given.arguments("--out", str(out), "--budget", "20,60", *more)
    assert main(arguments) == 0
    manifest = json.loads((out / "manifest.json").read_text("utf-8"))
    for budget, summary in manifest["summaries"].items():
        proven = summary["proven"]
        assert proven["share"] == proven["rows"] / int(budget)
        # Texts of few words repeat, so rows may tie; nothing else is open after a proof.
        assert proven["left"] == 0 or not more
    report = (out / "report.md").read_text("utf-8")
    assert "Of the 60 rows " in report
    assert "are proven to be among the exact best 60" in report
    rounding = manifest["diagnostics"]["score_rounding"]
    width = manifest["diagnostics"]["score_uncertainty"]
    assert (width < 1e6 * rounding) == bool(more)
    scores = [pq.read_table(out / name)["score"].to_numpy() for name in sorted(manifest["files"])]
    assert np.array_equal(scores[0], scores[1][:20])


def test_a_selection_whose_error_is_unknown_claims_nothing(given, tmp_path):
    out = tmp_path / "chosen"
    debiased = ["--budget", "20", "--set", "debias=true"]
    assert main(given.arguments("--out", str(out), *debiased)) == 0
    manifest = json.loads((out / "manifest.json").read_text("utf-8"))
    assert manifest["summaries"]["20"]["proven"] is None
    assert "proven" not in (out / "report.md").read_text("utf-8")


def test_a_proof_is_refused_where_there_is_none(given, tmp_path, capsys):
    more = ["--out", str(tmp_path / "out"), "--budget", "5", "--prove"]
    assert main(given.arguments(*more, "--set", "debias=true")) == 2
    assert "prove=true needs solver=semidual and debias=false" in capsys.readouterr().err
    assert main(given.arguments(*more, "--method", "dsir")) == 2
    assert "the method dsir has no setting 'prove'" in capsys.readouterr().err
