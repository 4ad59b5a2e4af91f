import csv
from pathlib import Path

import pytest

from gotd.reporting.claims import claims_tables, read_claims

PAPER = Path(__file__).parents[2] / "results" / "paper"


def test_the_claims_of_tsds_stand_with_their_sources():
    claims = read_claims(PAPER)
    (table,) = claims_tables(claims, "instruction")
    numbers = {row[:4]: row[4] for row in table.rows}
    assert numbers["independent", "Mistral-7B", "5,000 rows", "TSDS"] == "49.4"
    assert numbers["independent", "Qwen2.5-7B", "10,000 rows", "Random"] == "65.6"
    assert all("TSDS" in claim.source or "PASS" in claim.source for claim in claims)
    (labels,) = claims_tables(claims, "domain_labels")
    assert {row[0] for row in labels.rows} == {"claim"}
    assert claims_tables(claims, "domain") == []
    assert claims_tables(claims, "glue") == []


def test_a_broken_file_is_named(tmp_path):
    assert read_claims(tmp_path) == []
    path = tmp_path / "claims_x.csv"
    with (PAPER / "claims_tsds.csv").open() as file:
        rows = list(csv.reader(file))
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([rows[0], [*rows[1][:-1], ""]])
    with pytest.raises(ValueError, match=r"claims_x.csv, line 2: source is wrong"):
        read_claims(tmp_path)
    path.write_text("a,b\n1,2\n")
    with pytest.raises(ValueError, match="the columns must be experiments, kind"):
        read_claims(tmp_path)
