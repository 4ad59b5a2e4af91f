"""Everything in conf composes, says what it means, and a slip of the pen stops at once."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hydra import compose
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import ValidationError

from gotd.config.build import build, schema, targets
from gotd.config.discovery import conf_folder
from gotd.pipeline.experiment import plan_cell
from gotd.runs.expand import SweepError, composing, expand, expand_cells, experiments
from gotd.selectors.registry import entries, reads_space
from gotd.storage.keys import RUN_ONLY, identity

ONE = ("task=cola", "selector=got_d", "seed=1")
FILES = sorted(
    path.relative_to(conf_folder())
    for path in conf_folder().rglob("*.yaml")
    if path.parent != conf_folder()
)
# A scorer has its place inside an evaluation.
OPTIONS = [f for f in FILES if f.parts[0] not in ("experiment", "scale", "hydra", "scorer")]
SCORERS = [file for file in FILES if file.parts[0] == "scorer"]
# Fields that hold an object, which a schema of its own checks.
NESTED = {"scorer", "second_scorer", "generation", "perplexity", "utility", "spec", "settings"}
SCALES = sorted(path.stem for path in (conf_folder() / "scale").glob("*.yaml"))
BUILT = (
    "source",
    "task",
    "selector.method",
    "model.spec",
    "model.pretraining",
    "pre_fine_tune",
    "fine_tune",
    "tracker",
)


def constructor(target: str) -> type:
    module, _, name = target.rpartition(".")
    return getattr(importlib.import_module(module), name)


def leaves(node: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the dotted name and value of everything that is no mapping."""
    for name, value in node.items():
        if isinstance(value, dict) and value:
            yield from leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def said(file: Path) -> dict[str, Any]:
    """Read what a file says itself: dotted names in the composed config, and values."""
    path = conf_folder() / file
    here = OmegaConf.to_container(OmegaConf.load(path), resolve=False)
    assert isinstance(here, dict)
    everywhere = "@package _global_" in path.read_text(encoding="utf-8").splitlines()[0]
    for elsewhere in ("defaults", "hydra"):
        here.pop(elsewhere, None)
    return dict(leaves(here, "" if everywhere else f"{file.parts[0]}."))


def check_said(config: DictConfig, file: Path) -> None:
    plain = OmegaConf.to_container(config, resolve=False)
    assert isinstance(plain, dict)
    composed = dict(leaves(plain))
    for name, value in said(file).items():
        assert composed[name] == value, f"{file} says {name}: {value}; a default hides it"


# What is there ------------------------------------------------------------------------


@pytest.mark.parametrize("file", OPTIONS, ids=str)
def test_every_option_composes_and_holds_what_its_file_says(file):
    group, name = file.parts[0], file.stem
    chosen = {part.split("=")[0]: part for part in ONE} | {group: f"{group}={name}"}
    with composing():
        config = compose("config", overrides=["experiment=glue/micro", *chosen.values()])
    check_said(config, file)
    for node in BUILT:
        build(OmegaConf.select(config, node))


@pytest.mark.parametrize("file", SCORERS, ids=str)
def test_every_scorer_composes_into_the_evaluation_it_serves(file):
    with composing():
        chosen = f"scorer@evaluation.scorer={file.stem}"
        config = compose("config", overrides=["experiment=toxicity/micro", chosen])
    composed = dict(leaves(OmegaConf.to_container(config.evaluation.scorer, resolve=False)))
    for name, value in said(file).items():
        assert composed[name.removeprefix("scorer.")] == value
    build(config.evaluation)


@pytest.mark.parametrize("experiment", sorted({e.split(" ")[0] for e in experiments()}))
@pytest.mark.parametrize("scale", SCALES)
def test_every_experiment_at_every_scale_composes(experiment, scale):
    folder = Path("experiment") / experiment
    if not (conf_folder() / folder / f"{scale}.yaml").is_file():
        with pytest.raises(SweepError, match="there is no experiment"):
            expand([f"experiment={experiment}", f"scale={scale}"])
        return
    budget = OmegaConf.load(conf_folder() / folder / f"{scale}.yaml").get("budget")
    # Toxicity has one task, of a kind of its own; so has a known gap.
    tasks = {"toxicity": "toxicity", "gap": "gap_math", "grid": "gap_math"}
    task = tasks.get(experiment, "cola")
    chosen = [part if part != "task=cola" else f"task={task}" for part in ONE]
    cells = expand([f"experiment={experiment}", f"scale={scale}", *chosen])
    (config, variant), *others = [(c, v) for c, v in cells if c.budget == budget or not budget]
    if experiment == "labels":  # which sweeps one more axis
        assert variant == f"limits.labels={config.limits.labels}"
    elif experiment == "grid":  # which sweeps the space; the first one is its own
        assert variant == ""
        assert all(v == f"embedder={c.embedder.name}" for c, v in others)
    else:
        assert (variant, others) == ("", [])
    assert (config.scale_name, config.seed, config.task.name) == (scale, 1, task)
    for file in (Path("scale") / f"{scale}.yaml", folder / f"{scale}.yaml"):
        check_said(config, file)
    for node in BUILT:
        build(OmegaConf.select(config, node))


@pytest.mark.parametrize("name", experiments())
def test_a_sweep_has_a_cell_for_every_combination(name):
    experiment, scale = name.split(" scale=")
    # Two values of the long axes: `test_every_experiment_composes_all_its_cells` has all arms.
    few = ["seed=1,2", "selector=none,got_d"]
    cells = expand([f"experiment={experiment}", f"scale={scale}", *few])
    axes = [(c.task.name, c.selector.arm, c.seed, c.budget, variant) for c, variant in cells]
    assert len(set(axes)) == len(axes)
    if experiment == "grid":  # the arm without a selection is in no space
        axes = [axis for axis in axes if axis[1] != "none"]
        assert len(cells) - len(axes) == len({(axis[0], axis[2]) for axis in axes})
        cells = [(config, name) for config, name in cells if config.selector.arm != "none"]
    combined = 1
    for values in zip(*axes, strict=True):
        combined *= len(set(values))
    assert combined == len(cells)
    variants = {variant for _, variant in cells}
    if experiment == "labels" or scale in ("folder_labels", "paper_labels"):
        assert all(variant.startswith("limits.labels=") for variant in variants)
    elif experiment == "grid":
        assert all(variant.startswith("embedder=") for variant in variants - {""})
    else:
        assert variants == {""}


@pytest.mark.parametrize(
    ("scale", "own", "others"),
    [
        ("micro", "token_mean", {"tfidf_svd", "base_states", "hidden_weighted", "gradient"}),
        (
            "folder",
            "tfidf_svd",
            {"minilm_tokens", "minilm", "base_states", "hidden_weighted", "gradient"},
        ),
    ],
)
def test_the_grid_has_each_selector_in_each_space_that_it_reads(scale, own, others):
    task = "gap_micro" if scale == "micro" else "gap_math"
    few = ["selector=none,dsir,nearest,got_d", "seed=11", f"task={task}"]
    spaces: dict[str, list[str]] = {}
    for config, variant in expand(["experiment=grid", f"scale={scale}", *few]):
        spaces.setdefault(config.selector.arm, []).append(config.embedder.name)
        named = "" if config.embedder.name == own else f"embedder={config.embedder.name}"
        assert variant == named
    every = sorted({own, *others})
    assert {arm: sorted(found) for arm, found in spaces.items()} == {
        **dict.fromkeys(("none", "dsir"), [own]),
        **dict.fromkeys(("nearest", "got_d"), every),
    }


def test_the_grid_has_every_selector_that_can_be_compared_by_space():
    params = OmegaConf.load(conf_folder() / "experiment" / "grid.yaml").hydra.sweeper.params
    listed = params.selector.split(",")
    assert listed[:3] == ["none", "random", "dsir"]
    readers = {one.name for one in entries() if reads_space(one)}
    # Not offered, made for other tasks, or variants of what is listed.
    others = {"random_in_domain", "curated_tapt_duplicates", "got_d_contrast", "ensemble"}
    assert sorted(listed[3:]) == sorted(readers - others)


def test_the_grid_does_not_run_again_what_the_gap_experiment_ran():
    few = ["seed=11", "selector=none,random,nearest", "budget=400", "tracker=none"]
    of_gap, _ = expand_cells(["experiment=gap", *few])
    other, _ = expand_cells(["experiment=gap", "embedder=tfidf_svd", "selector=nearest", *few[:1]])
    of_grid, _ = expand_cells(["experiment=grid", *few, "embedder=tfidf_svd,token_mean"])
    assert [cell.record.key for cell in of_gap.values()] == [
        cell.record.key for job, cell in of_grid.items() if "embedder=tfidf_svd" not in job
    ]
    (apart,) = (cell for job, cell in of_grid.items() if "embedder=tfidf_svd" in job)
    assert apart.record.key in {cell.record.key for cell in other.values()}


def test_a_selector_without_embeddings_runs_in_the_own_space_of_the_grid_alone():
    cells = expand(["experiment=grid", "seed=11", "selector=random,got_d", "embedder=gradient"])
    found = [(c.selector.arm, c.embedder.name, variant) for c, variant in cells]
    assert found == [("random", "token_mean", ""), ("got_d", "gradient", "embedder=gradient")]


def test_expand_gives_what_hydra_composes():
    """`compose_all` saves compositions; each cell must still be Hydra's own."""
    tasks, arms = ("cola", "stsb", "mnli"), ("none", "got_d", "dsir")
    cells = expand(
        ["task=" + ",".join(tasks), "selector=" + ",".join(arms), "seed=1,2", "budget=7"]
    )
    assert len(cells) == 18
    for config, _ in cells[::5]:
        arm = config.selector.arm
        with composing():
            whole = compose(
                "config",
                overrides=[
                    "experiment=glue/micro",
                    f"task={config.task.name}",
                    f"selector={arm}",
                    f"seed={config.seed}",
                    "budget=7",
                ],
            )
        assert OmegaConf.to_container(config, resolve=True) == OmegaConf.to_container(
            whole, resolve=True
        )


def test_every_micro_arm_can_be_planned():
    cells = expand(["experiment=glue", "scale=micro", "task=cola", "seed=1"])
    records = [plan_cell(config, variant).record.key for config, variant in cells]
    assert len(set(records)) == len(cells)


def test_real_rows_can_be_planned(data_folder):
    cells = expand(["experiment=glue", "scale=folder", "task=cola,sst2", "seed=1"])
    keys = {plan_cell(config, variant).record.key for config, variant in cells}
    assert len(keys) == len(cells)


# Slips of the pen ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("slip", "names"),
    [
        # a group, or an option of it
        ("seelctor=got_d", "seelctor"),
        ("task=colla", "task/colla"),
        ("tracker=nope", "tracker/nope"),
        ("protocol=clen", "protocol/clen"),
        ("evaluation=", "evaluation"),
        ("experiment=nope", "experiment=nope"),
        ("scale=nope", "scale=nope"),
        ("hydra/launcher=jobli", "launcher/jobli"),
        # a field
        ("budgett=3", "budgett"),
        ("fine_tune.learning_rat=1", "learning_rat"),
        ("pre_fine_tune.epoch=1", "epoch"),
        ("embedder.poolling=cls", "poolling"),
        ("transport.epsilonn=1", "epsilonn"),
        ("selector.method.epsilonn=1", "epsilonn"),
        ("model.spec.layerz=2", "layerz"),
        ("model.pretraining.epoch=2", "epoch"),
        ("source.labells=2", "labells"),
        ("task.classess=2", "classess"),
        ("tracker.projet=1", "projet"),
        ("limits.label=3", "label"),
        ("candidates.file=3", "file"),
        ("target_chunks.units=whole", "units"),
        # a type
        ("budget=many", "budget"),
        ("seed=1.5", "seed"),
        ("fine_tune.learning_rate=abc", "learning_rate"),
        ("fine_tune.freeze_embeddings=maybe", "freeze_embeddings"),
        ("selector.method.epsilon=abc", "epsilon"),
        ("transport.epsilon=abc", "epsilon"),
        ("model.spec.layers=two", "layers"),
        ("model.pretraining.epochs=x", "epochs"),
        ("source.labels=x", "labels"),
        ("task.classes=two", "classes"),
        ("task.text_columns=sentence", "text_columns"),
        ("candidates.limit=x", "limit"),
        # the grammar
        ("budget=[1", r"\[1"),
    ],
)
def test_a_slip_fails_when_composing_in_one_line(slip, names):
    overrides = [part for part in ONE if part.split("=")[0] != slip.split("=")[0]]
    with pytest.raises(SweepError, match=names) as caught:
        expand([*overrides, slip])
    assert "\n" not in str(caught.value)


def test_a_slip_among_the_values_of_a_sweep_is_found_too():
    with pytest.raises(SweepError, match="gotd"):
        expand([*ONE[:1], "selector=got_d,gotd", "seed=1"])


@pytest.mark.parametrize(
    "slip",
    [
        "+fine_tune.learning_rat=1",
        "++selector.method.epsilonn=1",
        "+budgett=3",
        "scale=micro,folder",
        "experiment=glue,glue",
        "~limits",
    ],
)
def test_what_hydra_would_let_pass_is_refused(slip):
    with pytest.raises(ValueError, match=slip.strip("+~").partition("=")[0].split(".")[-1]):
        expand_cells([*ONE, slip])


@pytest.mark.parametrize(
    ("slip", "names"),
    [
        ("budget=0", "budget"),
        ("protocol_name=clen", "protocol"),
        ("pre_fine_tune.tuning=lor", "tuning"),
        ("selector.method.solver=nope", "solver"),
        ("model.spec.tokenizer=nope", "tokenizer"),
        ("task.headline=nope", "headline"),
        ("tracker.mode=nope", "mode"),
        ("source.labels=0", "labels"),
        *(
            (slip, slip.partition("=")[0].split(".")[-1])
            for slip in (
                "embedder.pooling=clss",
                "embedder.precision=fp16",
                "embedder.max_length_tokens=0",
                "target_chunks.unit=chunk",
                "candidate_chunks.length_chars=0",
                "candidate_chunks.min_chars=-1",
                "limits.labels_chosen=last",
                "limits.validation_rows=0",
                "rank_rows=10",
                "workers=0",
                "fine_tune.betas=[0.9]",
            )
        ),
    ],
)
def test_a_value_that_cannot_be_is_refused_before_anything_runs(slip, names):
    with pytest.raises(ValueError, match=names):
        expand_cells([*ONE, slip])


# Schemas ------------------------------------------------------------------------------


@pytest.mark.parametrize("target", targets().values())
def test_every_target_is_a_frozen_dataclass_with_named_fields_only(target):
    cls = constructor(target)
    assert dataclasses.is_dataclass(cls)
    assert typing.cast(Any, cls).__dataclass_params__.frozen
    for name, parameter in inspect.signature(cls).parameters.items():
        assert parameter.kind is not inspect.Parameter.VAR_KEYWORD, f"{target}: **{name}"
        assert parameter.kind is not inspect.Parameter.VAR_POSITIONAL, f"{target}: *{name}"
        assert parameter.annotation is not inspect.Parameter.empty, f"{target}: {name}"


@pytest.mark.parametrize("target", targets().values())
def test_a_schema_has_the_fields_and_defaults_of_its_constructor(target):
    cls = constructor(target)
    node = OmegaConf.structured(schema(target))
    wanted = [f.name for f in dataclasses.fields(cls) if f.init]
    assert list(node) == ["_target_", *wanted]
    needed = {
        f.name
        for f in dataclasses.fields(cls)
        if f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING and f.init
    }
    assert {name for name in node if OmegaConf.is_missing(node, name)} == needed
    if not needed:
        try:
            plain = cls()
        except ValueError:
            return  # its defaults alone are no value
        assert build(node) == plain


@pytest.mark.parametrize("target", targets().values())
def test_a_schema_refuses_other_types_and_names(target):
    cls = constructor(target)
    hints = typing.get_type_hints(cls)
    node = OmegaConf.structured(schema(target))
    with pytest.raises(Exception, match="not_there"):
        node.not_there = 1
    for field in dataclasses.fields(cls):
        if field.init and hints[field.name] in (int, float, bool):
            with pytest.raises(ValidationError):
                node[field.name] = "many"
    plain = {f.name for f in dataclasses.fields(schema(target)) if f.type is Any}
    assert plain <= NESTED, f"{target}: {plain} would take any value"


def test_every_constructor_is_named_by_a_file_of_conf():
    """Bases that conf names and nobody registers fail above; this is the other way."""
    named = {
        line.strip(" -").split("@")[0]
        for path in conf_folder().rglob("*.yaml")
        for line in path.read_text(encoding="utf-8").splitlines()
        if line.strip().startswith("- base_")
    }
    assert {f"base_{name}" for _, name in targets()} <= named


def test_lists_are_built_as_tuples():
    node = OmegaConf.structured(schema(targets()["fine_tune", "classifier"]))
    node.learning_rate, node.epochs, node.betas = 1e-3, 1, [0.5, 0.6]
    assert build(node).betas == (0.5, 0.6)
    assert build(None) is None


def test_a_field_without_a_value_is_named():
    node = OmegaConf.structured(schema(targets()["fine_tune", "classifier"]))
    with pytest.raises(ValueError, match="learning_rate"):
        build(node)


# Keys ---------------------------------------------------------------------------------

RUNS_ONLY = (
    "store",
    "workers",
    "threads",
    "tracker.directory",
    "tracker.project",
    "rank_rows",  # this selector scores every candidate, whatever the budget
    "candidate_chunks.length_chars",  # the documents of this scale are not cut
    "target_chunks.length_chars",
    "dsir.target_smoothing",  # this selector is another
    "dsir.quality_filter",
    "engine",
    *(
        f"{group}.{name}"
        for group in ("pre_fine_tune", "fine_tune", "model.pretraining")
        for name in ("per_device_batch_size", "checkpoint_every_steps", "gradient_checkpointing")
    ),
    # Several devices share each step and learn what one learns (tests/training/test_devices.py).
    "pre_fine_tune.devices",
    "model.pretraining.devices",
    "selector.method.device",
)


def changed(value: Any) -> Any:
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return value + 1
    if isinstance(value, float):
        return value * 0.75 + 0.01
    return f"{value}x"


def another(cls: type, name: str, value: Any) -> Any:
    """Return another value of a field, one of its choices where it has some."""
    hint = typing.get_type_hints(cls)[name]
    if typing.get_origin(hint) is typing.Literal:
        return next(choice for choice in typing.get_args(hint) if choice != value)
    return changed(value or "some")


def test_what_decides_bytes_is_in_the_record_key_and_nothing_else():
    """Change every value of a cell, one at a time, and look at its key."""
    ((config, _),) = expand(ONE)
    key = plan_cell(config).record.key
    resolved = OmegaConf.to_container(config, resolve=True)
    assert isinstance(resolved, dict)
    keyed: list[str] = []
    unkeyed: list[str] = []
    for name, value in leaves(resolved):
        if value is None or isinstance(value, (dict, list)) or name.endswith("_target_"):
            continue
        other = config.copy()
        try:
            OmegaConf.update(other, name, changed(value))
            found = plan_cell(other).record.key
        except (ValueError, FileNotFoundError):
            continue  # the changed value is none that could be
        (unkeyed if found == key else keyed).append(name)
    never_valid = {"engine", "threads", "selector.method.device"}  # another value is refused
    shown = {name for name in unkeyed if name.startswith("selector.about.")} | {"embedder.name"}
    assert set(RUNS_ONLY) - never_valid <= set(unkeyed) <= {*RUNS_ONLY, *shown}
    assert len(keyed) > 50


@pytest.mark.parametrize(
    "name",
    [
        "selector.arm",
        "model.name",
        "experiment_name",
        "scale_name",
    ],
)
def test_names_are_in_no_key_but_the_records(name):
    ((config, _),) = expand(ONE)
    keys = [step.key for step in plan_cell(config).record.ancestors()]
    OmegaConf.update(config, name, "renamed")
    cell = plan_cell(config, "a=variant")
    assert [step.key for step in cell.record.ancestors()][:-1] == keys[:-1]
    assert cell.record.key != keys[-1]


@pytest.mark.parametrize("target", targets().values())
def test_the_identity_of_a_constructor_leaves_out_how_it_runs_and_nothing_more(target):
    """A new field whose name is on the list by accident would be lost from every key."""
    cls = constructor(target)
    left_out = {f.name for f in dataclasses.fields(cls)} & RUN_ONLY
    assert left_out <= {
        "batch_tokens",
        "per_device_batch_size",
        "strategy",
        "checkpoint_every_steps",
        "gradient_checkpointing",
        "device",
        "devices",
    }
    try:
        value = cls()
    except (TypeError, ValueError):
        return
    if "key_name" not in vars(cls):
        return  # sources, scorers and trackers state their identity themselves
    late = {f.name for f in dataclasses.fields(cls) if f.metadata.get("added_later")}
    fields = {f.name for f in dataclasses.fields(cls) if f.init} - late
    for name in late:
        set_to = dataclasses.replace(value, **{name: another(cls, name, getattr(value, name))})
        assert set(identity(set_to)) - set(identity(value)) == {name}
    assert set(identity(value)) == (fields - left_out) | {"class", "version"}


@pytest.mark.parametrize(
    "launcher", ["basic", "local", "joblib", "submitit_local", "submitit_slurm"]
)
@pytest.mark.parametrize("experiment", ["glue/micro", "glue/folder", "domain/micro"])
def test_every_launcher_composes(launcher, experiment):
    """The launcher is an axis of its own: no experiment may set another one's field."""
    if launcher.startswith("submitit"):
        pytest.importorskip("hydra_plugins.hydra_submitit_launcher")
    ((config, variant),) = expand([f"experiment={experiment}", *ONE, f"hydra/launcher={launcher}"])
    assert variant == ""
    assert config.seed == 1
