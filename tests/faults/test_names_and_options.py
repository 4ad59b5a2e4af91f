"""Names that become paths, and options that are validated where they are declared (K5, K7, K8)."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest
from omegaconf import OmegaConf

from gotd._version import __version__
from gotd.cli.main import main
from gotd.data.columns import Columns, both_columns
from gotd.data.inputs import table_parts
from gotd.pipeline.experiment import plan_cell
from gotd.planning.plan import lay_out
from gotd.runs import export as exporting
from gotd.runs.expand import SweepError, expand, resolve
from gotd.selectors import compiled as compiling
from gotd.selectors.registry import build_selector
from gotd.storage.artifacts import Step, Store
from gotd.storage.files import check_name, locked


@pytest.mark.parametrize("name", ["../x", "a/b", "/etc/x", ".hidden", "a\0b", "a\nb", "x" * 300])
def test_a_name_never_leads_out_of_the_store(name):
    """B19: `selector.arm=../../../x` wrote outside the store."""
    with pytest.raises(ValueError, match=r"cannot name a folder|the most"):
        check_name(name, "the arm")
    with pytest.raises(ValueError, match=r"cannot name a folder|the most"):
        Step("kind", 1, name, {}, lambda *_: None)


@pytest.fixture(scope="module")
def config():
    overrides = ["experiment=glue", "scale=micro", "task=cola", "selector=got_d", "seed=11"]
    return expand(overrides)[0][0]


@pytest.mark.parametrize(
    "field", ["selector.arm", "experiment_name", "scale_name", "model.name", "embedder.name"]
)
def test_a_cell_with_such_a_name_is_refused_before_anything_runs(config, tmp_path, field):
    """B19."""
    config = config.copy()
    config.store = str(tmp_path / "s")
    OmegaConf.update(config, field, "../../x")
    with pytest.raises(ValueError, match="cannot name a folder"):
        plan_cell(config)
    assert not [*tmp_path.iterdir()]


def test_an_output_leaves_the_names_of_others_alone(here):
    """A13: `.chosen.old` and `.chosen.part` of the user were deleted."""
    mine = [".o.old", ".o.part", "o.part", "o.old", ".o.lock"]
    for name in mine:
        (here.folder / name).mkdir()
        (here.folder / name / "thesis.txt").write_text("mine")
    for _ in range(2):
        assert here.select()[0] == 0
    assert all((here.folder / name / "thesis.txt").read_text() == "mine" for name in mine)


def test_a_lock_never_empties_what_a_link_leads_to(tmp_path):
    """A13: the file behind a link was emptied."""
    (tmp_path / "important.txt").write_text("mine")
    (tmp_path / "lock").symlink_to(tmp_path / "important.txt")
    with pytest.raises(OSError, match="lock"), locked(tmp_path / "lock"):
        pass
    assert (tmp_path / "important.txt").read_text() == "mine"


def test_an_export_leaves_the_part_of_another_alone(tmp_path, monkeypatch):
    """A14: `model.part/` was deleted."""
    mine = tmp_path / "model.part"
    mine.mkdir()
    (mine / "thesis.txt").write_text("mine")

    class StopError(Exception):
        pass

    class Cell:
        record = Step(
            "record", 1, "r", {}, lambda *_: None, {"model": Step("m", 1, "m", {}, print)}
        )
        store = Store(tmp_path / "store")

    def stop(*_, **__):
        raise StopError

    monkeypatch.setattr(exporting, "expand", lambda _: [(None, "")])
    monkeypatch.setattr(exporting, "plan_cell", lambda *_: Cell)
    monkeypatch.setattr(Store, "is_done", lambda *_: True)
    monkeypatch.setattr(Store, "get", lambda *_: tmp_path)
    monkeypatch.setattr(exporting.shutil, "copytree", stop)
    with pytest.raises(StopError):
        exporting.export(["x"], tmp_path / "model")
    assert (mine / "thesis.txt").read_text() == "mine"


@pytest.mark.parametrize(
    ("override", "advice"),
    [
        ("selector=[got_d,dsir]", "selector=got_d,dsir"),
        ("task=[cola, rte]", "task=cola,rte"),
        ("model=[micro]", "model=micro"),
        ("scorer@evaluation.scorer=[detoxify]", "detoxify"),
        ("store=a,b", "not an axis"),
        ("workers=1,2", "not an axis"),
        ("threads=1,2", "not an axis"),
        ("tracker=none,wandb", "not an axis"),
        ("source.path=a,b", "not an axis"),
        (
            "hydra.launcher.n_jobs=1,2",
            "n_jobs changes no result, so it is not an axis",
        ),
        ("hydra/launcher=basic,local", "not an axis"),
        ("hydra.job.chdir=true,false", "not an axis"),
    ],
)
def test_a_list_that_would_run_in_part_is_refused(override, advice):
    """A17: the last entry alone was run, with status 0."""
    with pytest.raises(SweepError, match=advice):
        resolve(["experiment=glue", override])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("removed", "kept"), [("~selector", ["task=cola"]), ("~task", ["selector=got_d"])]
)
def test_a_group_that_was_removed_is_one_line(removed, kept):
    """B12: a traceback of OmegaConf."""
    with pytest.raises(SweepError, match=r"~|selector|task"):
        lay_out(["experiment=glue", "seed=11", *kept, removed])


@pytest.mark.parametrize("value", ["1" + "0" * 30, "-1", "2147483648"])
@pytest.mark.parametrize("option", ["--length-chars", "--min-chars"])
def test_a_number_that_no_column_can_hold_is_one_line(here, option, value):
    """B11: OverflowError and TypeError."""
    status, printed = here.select(option, value)
    assert status == 2
    assert "chunks" in printed.splitlines()[-1]


@pytest.mark.parametrize(
    "setting", ["device=cuda", "device=cuda:99", "device=mps", "device=tpu", "tolerance=2"]
)
def test_a_setting_that_cannot_be_is_one_line_before_any_work(here, setting):
    """B10, C13: a traceback after embedding; a solve that had converged at any error."""
    status, printed = here.select("--set", setting)
    assert status == 2
    assert "Traceback" not in printed
    assert not (here.folder / "store" / "pool").exists()


@pytest.mark.parametrize(
    ("setting", "value"), [("max_passes", "2.5"), ("epsilon", "[0.1]"), ("whiten", "5")]
)
def test_a_setting_of_another_type_is_named(setting, value):
    """B9."""
    with pytest.raises(ValueError, match=f"--set {setting}="):
        build_selector("got_d", {setting: value})


def test_names_of_columns_are_trimmed_and_given_once():
    """C5."""
    assert both_columns("a, b")[0].text == ("a", "b")
    for wrong in ("", "a,,b", "a,a"):
        with pytest.raises(ValueError, match="--text-column takes the names"):
            both_columns(wrong)
    with pytest.raises(ValueError, match="contradict|--id-column"):
        Columns(id="a", template="{a}", text=("b",))


@pytest.mark.parametrize(
    "arguments", [("--out", "o\udcff"), ("--store", "s\udcff"), ("--candidates", "p\udcff.jsonl")]
)
def test_a_name_that_is_not_utf8_is_refused_at_the_start(here, arguments, monkeypatch):
    """B18: "codec can't encode", after all work."""
    monkeypatch.chdir(here.folder)
    status, printed = here.select(*arguments)
    assert status == 2
    assert "is not UTF-8" in printed
    assert not (here.folder / "store").exists()


def test_a_long_store_is_one_line(here):
    """C20."""
    status, printed = here.select("--store", "x" * 300)
    assert status == 2
    assert "300 bytes" in printed


def test_a_bracket_in_a_pattern_has_a_hint(here):
    """C7."""
    (here.folder / "a[b]").mkdir()
    status, printed = here.select(pool=Path(here.folder / "a[b]" / "*.jsonl"))
    assert status == 2
    assert "[[]" in printed


def test_the_version_is_printed(capsys):
    """C16."""
    with pytest.raises(SystemExit) as stopped:
        main(["--version"])
    assert stopped.value.code == 0
    assert capsys.readouterr().out == f"gotd {__version__}\n"
    assert (Path(compiling.__file__).parents[1] / "py.typed").is_file()


def test_functions_are_compiled_where_no_folder_can_be_written(monkeypatch):
    """B20: a read-only installation without a home could not be imported."""
    asked = []

    def njit(cache=False, **_):
        asked.append(cache)
        if cache:
            raise RuntimeError("cannot cache function: no locator available")
        return lambda function: function

    monkeypatch.setattr(compiling, "njit", njit)
    assert compiling.compiled(nogil=True)(abs) is abs
    assert asked == [True, False]


@pytest.mark.parametrize(
    ("rows", "count"),
    [
        (pa.chunked_array([["a", "b"], ["c"]]), 3),
        (pa.array(["a"]), 1),
        (pa.record_batch({"text": ["a", "b"]}), 2),
    ],
)
def test_every_kind_of_arrow_rows_is_read(rows, count):
    """B9."""
    (part,) = table_parts(rows, "pool", Columns())
    assert sum(len(table) for table in part.pieces()) == count


def test_a_dictionary_of_splits_is_refused_in_words():
    """B9: a KeyError of another library."""
    splits = type("DatasetDict", (dict,), {"with_format": None})({"train": 1, "test": 2})
    with pytest.raises(TypeError, match="give one split of the DatasetDict, such as train, test"):
        table_parts(splits, "pool", Columns())
