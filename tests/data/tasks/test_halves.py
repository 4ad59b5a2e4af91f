import pyarrow as pa
import pyarrow.parquet as pq

from gotd.data.tasks.halves import TargetOfHalves


def test_texts_to_evaluate_on_are_read_with_their_half(tmp_path):
    rows = {
        "id": ["a", "b"],
        "text": ["x", "y"],
        "domain": ["d", "e"],
        "part": ["covered", "missing"],
    }
    pq.write_table(pa.table(rows), tmp_path / "held_out.parquet")
    found = TargetOfHalves("gap", "d", "e").held_out_texts(tmp_path)
    assert found.to_pydict() == {name: rows[name] for name in ("id", "text", "part")}
