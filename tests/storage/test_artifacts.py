"""Kill it, fill its disk, damage its files: what stands under a final name is whole."""

from __future__ import annotations

import dataclasses
import errno
import json
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import gotd
from gotd.config.schemas import Chunking, TaskLimits
from gotd.data.columns import Columns
from gotd.data.inputs import table_parts
from gotd.data.pool import as_one, open_pool
from gotd.embedding.encoders import TransformerEncoder
from gotd.embedding.tfidf import TfidfSvdEmbedder, TfidfSvdEncoder
from gotd.engine.local import LocalEngine
from gotd.pipeline.steps import models, pools, selections
from gotd.storage import artifacts, progress
from gotd.storage.artifacts import MANIFEST, WORK, ArtifactError, Step, Store, canonical_json
from gotd.storage.seeds import derive_seeds

STEPS = 6

PROGRAM = """
import os, sys, time
from pathlib import Path
from gotd.storage.artifacts import WORK, Step, Store

root, log, stop_at, wait_for = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), sys.argv[4:]

def note(line):
    with log.open("a") as file:
        file.write(f"{line}\\n")

def build(folder, inputs):
    work = folder / WORK
    work.mkdir(exist_ok=True)
    for number in range(6):
        step = work / str(number)
        if step.exists():
            continue
        if number == stop_at:
            (folder / "half.bin").write_bytes(b"half")
            print("stopped", flush=True)
            time.sleep(120)
        note(number)
        step.write_bytes(bytes([number]) * 1000)
        if wait_for:
            time.sleep(0.1)
    (folder / "half.bin").write_bytes(b"whole")
    (folder / "all.bin").write_bytes(b"".join((work / str(n)).read_bytes() for n in range(6)))

if wait_for:
    (root.parent / f"ready-{os.getpid()}").touch()
    while len(list(root.parent.glob("ready-*"))) < 2:
        time.sleep(0.01)
folder = Store(root).get(Step("kind", 1, "name", {"a": 1}, build))
print(folder, flush=True)
"""


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


def nothing(folder: Path, inputs: Mapping[str, Path]) -> None:
    """Write nothing."""


def make(
    build: Callable[[Path, Mapping[str, Path]], None] = nothing,
    kind: str = "kind",
    version: int = 1,
    name: str = "name",
    parameters: Mapping[str, Any] | None = None,
    inputs: Mapping[str, Step] | None = None,
) -> Step:
    return Step(kind, version, name, parameters or {"a": 1}, build, inputs or {})


def write(text: str) -> Callable[[Path, Mapping[str, Path]], None]:
    def build(folder: Path, inputs: Mapping[str, Path]) -> None:
        (folder / "sub").mkdir(exist_ok=True)
        (folder / "sub" / "file.txt").write_text(text)
        (folder / "other.txt").write_text("other")

    return build


def contents(folder: Path) -> dict[str, bytes]:
    """Read all files but the manifest, which says when they were made."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name != MANIFEST
    }


def run(*arguments: Any) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": str(Path(gotd.__file__).parents[1])}
    command = [sys.executable, "-c", PROGRAM, *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)


# The key ------------------------------------------------------------------------------


def test_the_key_changes_with_everything_that_decides_bytes():
    below = make(kind="below")
    step = make(parameters={"a": 1, "nested": {"b": [1, 2]}}, inputs={"x": below})
    changed = [
        dataclasses.replace(step, kind="other"),
        dataclasses.replace(step, version=2),
        dataclasses.replace(step, parameters={"a": 2, "nested": {"b": [1, 2]}}),
        dataclasses.replace(step, parameters={"a": "1", "nested": {"b": [1, 2]}}),
        dataclasses.replace(step, parameters={"a": 1, "nested": {"b": [2, 1]}}),
        dataclasses.replace(step, parameters={"a": 1, "nested": {"b": [1, 2], "c": None}}),
        dataclasses.replace(step, inputs={}),
        dataclasses.replace(step, inputs={"y": below}),
        dataclasses.replace(step, inputs={"x": dataclasses.replace(below, version=2)}),
        dataclasses.replace(step, inputs={"x": below, "y": below}),
    ]
    keys = [one.key for one in (step, *changed)]
    assert len(set(keys)) == len(keys)


def test_the_key_does_not_change_with_names_order_or_code(store):
    step = make(parameters={"a": 1, "b": 2}, inputs={"x": make(), "y": make(version=2)})
    same = make(
        write("other code"),
        name="other",
        parameters={"b": 2, "a": 1},
        inputs={"y": make(version=2), "x": make(name="renamed")},
    )
    assert same.key == step.key
    assert Store(store.root / "elsewhere").folder(step).name == store.folder(step).name


def test_the_key_is_the_same_in_another_process():
    """Python's own hashes differ between processes; a key must not."""
    line = (
        "from gotd.storage.artifacts import Step;"
        "print(Step('kind', 1, 'name', {'a': 1, 'b': 'é'}, print).key)"
    )
    environment = {
        **os.environ,
        "PYTHONPATH": str(Path(gotd.__file__).parents[1]),
        "PYTHONHASHSEED": "7",
    }
    there = subprocess.check_output([sys.executable, "-c", line], env=environment, text=True)
    assert there.strip() == make(parameters={"a": 1, "b": "é"}).key


@dataclasses.dataclass(frozen=True)
class Settings:
    key_name: ClassVar[str] = "Settings"

    learning_rate: float = 1e-3
    betas: tuple[float, float] = (0.9, 0.98)
    per_device_batch_size: int = 16
    checkpoint_every_steps: int = 10
    gradient_checkpointing: bool = False


@pytest.mark.parametrize(
    ("change", "same"),
    [
        ({"learning_rate": 2e-3}, False),
        ({"betas": (0.9, 0.99)}, False),
        ({"per_device_batch_size": 4}, True),
        ({"checkpoint_every_steps": 20}, True),
        ({"gradient_checkpointing": True}, True),
    ],
)
def test_how_a_stage_runs_is_in_no_key(change, same):
    def step(settings: Settings) -> Step:
        return models.pre_fine_tuned(make(), make(version=2), settings, "arm", derive_seeds(0))

    assert (step(Settings(**change)).key == step(Settings()).key) is same


def test_workers_and_paths_are_in_no_key(tmp_path):
    from gotd.data.folder import Folder
    from gotd.selectors.random import Random

    def embedded(workers: int) -> Step:
        return pools.embeddings(make(), TfidfSvdEncoder(), LocalEngine(workers), model=make())

    def ranked(workers: int) -> Step:
        chunks = {"target": make(), "candidates": make(version=2)}
        return selections.scored(Random(), "random", chunks, 10, 0, LocalEngine(workers))

    assert embedded(1).key == embedded(4).key
    assert ranked(1).key == ranked(4).key
    keys = []
    for name in ("here", "there"):
        file = tmp_path / name / "candidates" / "a.parquet"
        file.parent.mkdir(parents=True)
        pq.write_table(pa.table({"text": ["one", "two"]}), file)
        source = Folder(path=str(tmp_path / name), held_out_share=0.0)
        keys.append(pools.pool("candidates", source.candidates(), Chunking()).key)
    assert keys[0] == keys[1]


def test_every_parameter_of_the_stages_is_in_their_key():
    parts = table_parts(["a", "b"], "mine", Columns())

    def pool(parts: Any = parts, **chunks: Any) -> Step:
        return pools.pool("candidates", parts, Chunking(**chunks))

    assert pool(unit="whole").key != pool().key
    assert pool(length_chars=7).key != pool().key
    assert pool(table_parts(["a", "c"], "mine", Columns())).key != pool().key
    space = TransformerEncoder("e", "minilm")
    changes = {
        "model": "base",
        "pooling": "cls",
        "max_length_tokens": 7,
        "normalise": True,
        "precision": "bf16",
    }

    def embedded(encoder: Any, **more: Any) -> str:
        return pools.embeddings(pool(), encoder, LocalEngine(), **more).key

    keys = {embedded(dataclasses.replace(space, **{k: v})) for k, v in changes.items()}
    keys |= {embedded(space), embedded(space, length_chars=7), embedded(space, model=make())}
    keys |= {embedded(TfidfSvdEncoder()), embedded(TfidfSvdEncoder(dimension=7))}
    assert len(keys) == len(changes) + 5
    assert embedded(dataclasses.replace(space, name="another")) == embedded(space)
    rows = make(kind="task")
    limits = TaskLimits()
    keys = {
        pools.target(rows, Chunking(), limits, "clean").key,
        pools.target(rows, Chunking(), limits, "published").key,
        pools.target(rows, Chunking(), dataclasses.replace(limits, target_rows=3), "clean").key,
        pools.target(rows, Chunking(length_chars=7), limits, "clean").key,
    }
    assert len(keys) == 4


def test_fewer_target_texts_are_not_the_first_ones(tmp_path):
    """Files are often sorted by label, so the first rows may be of one class."""

    def build(folder: Path, _: Mapping[str, Path]) -> None:
        ids = [f"r{i}" for i in range(200)]
        texts = ["good"] * 100 + ["bad"] * 100
        empty = pa.nulls(200, pa.string())
        table = {"id": ids, "text": texts, "text_pair": empty, "domain": empty}
        pq.write_table(pa.table(table), folder / "train.parquet")

    rows = Step("task", 1, "rows", {}, build, {})
    limits = TaskLimits(target_rows=60)
    whole = Chunking(unit="whole")
    folder = Store(tmp_path).get(pools.target(rows, whole, limits, "clean"))
    texts = as_one(open_pool(folder)).texts.to_pylist()
    assert len(texts) == 60
    assert 15 < texts.count("good") < 45


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, {"a": [1.0, math.nan]}])
def test_canonical_json_refuses_what_json_cannot_say(value):
    with pytest.raises(ValueError, match="JSON"):
        canonical_json(value)
    with pytest.raises(ValueError, match="JSON"):
        _ = make(parameters={"a": value}).key


def test_canonical_json_gives_equal_bytes_for_equal_values():
    assert canonical_json({"b": (1, 2), "a": "é"}) == canonical_json({"a": "é", "b": [1, 2]})
    assert json.loads(canonical_json({"a": 0.1 + 0.2})) == {"a": 0.1 + 0.2}
    with pytest.raises(TypeError):
        canonical_json({"a": Path("x")})


def test_ancestors_come_inputs_first_and_once():
    base = make(kind="base")
    left, right = make(kind="left", inputs={"b": base}), make(kind="right", inputs={"b": base})
    top = make(kind="top", inputs={"l": left, "r": right})
    assert [step.kind for step in top.ancestors()] == ["base", "left", "right", "top"]


# Building and reading -----------------------------------------------------------------


def test_a_stage_is_built_once_and_its_inputs_before_it(store):
    calls = []

    def below(folder: Path, inputs: Mapping[str, Path]) -> None:
        calls.append("below")
        (folder / "x").write_text("7")

    def above(folder: Path, inputs: Mapping[str, Path]) -> None:
        calls.append("above")
        (folder / "y").write_text((inputs["x"] / "x").read_text() + "!")

    step = make(above, kind="above", inputs={"x": make(below, kind="below")})
    assert not store.is_done(step)
    assert (store.get(step) / "y").read_text() == "7!"
    assert (Store(store.root).get(step) / "y").read_text() == "7!"
    assert calls == ["below", "above"]
    manifest = store.manifest(step)
    assert manifest["inputs"] == {"x": step.inputs["x"].key}
    assert manifest["files"]["y"]["bytes"] == 2
    assert manifest["cost"]["resumed"] is False


def test_memory_is_returned_after_each_stage_that_is_built(store, monkeypatch):
    calls = []
    monkeypatch.setattr(artifacts, "return_memory", lambda: calls.append("returned"))
    below = make(lambda *_: calls.append("below"), kind="below")
    step = make(lambda *_: calls.append("above"), kind="above", inputs={"x": below})
    for _ in range(2):
        Store(store.root).get(step)
    assert calls == ["below", "returned", "above", "returned"]


def test_two_stores_hold_the_same_bytes(tmp_path):
    folders = [Store(tmp_path / name).get(make(write("same"))) for name in ("a", "b")]
    assert contents(folders[0]) == contents(folders[1])
    manifests = [json.loads((folder / MANIFEST).read_text()) for folder in folders]
    for manifest in manifests:
        manifest.pop("cost")
    assert manifests[0] == manifests[1]


def test_a_failed_build_leaves_its_part_and_resumes_there(store):
    def build(folder: Path, inputs: Mapping[str, Path]) -> None:
        work = folder / WORK
        work.mkdir(exist_ok=True)
        done = len(list(work.iterdir()))
        (work / str(done)).touch()
        if done < 2:
            raise ValueError("stopped")
        (folder / "tries").write_text(str(done))

    step = make(build)
    part = store.folder(step).with_name(store.folder(step).name + ".part")
    for _ in range(2):
        with pytest.raises(ValueError, match="stopped"):
            store.get(step)
        assert part.is_dir()
        assert not store.is_done(step)
        assert not store.folder(step).exists()
    folder = store.get(step)
    assert contents(folder) == {"tries": b"2"}, "the checkpoints are gone, and only they"
    assert store.manifest(step)["cost"]["resumed"] is True
    assert not part.exists()


@pytest.mark.parametrize("stop_at", [0, 3, 5])
def test_a_killed_process_leaves_nothing_and_the_next_gives_the_same_bytes(tmp_path, stop_at):
    store, log = tmp_path / "store", tmp_path / "log"
    killed = run(store, log, stop_at)
    assert killed.stdout is not None
    assert killed.stdout.readline() == "stopped\n"
    killed.send_signal(signal.SIGKILL)
    assert killed.wait(30) == -signal.SIGKILL
    killed.stdout.close()
    assert [p.name[-5:] for p in (store / "kind").iterdir()] == [".part"]
    folder = finish(run(store, log, -1))
    plain = finish(run(tmp_path / "plain", tmp_path / "plain-log", -1))
    assert contents(folder) == contents(plain)
    assert contents(folder)["half.bin"] == b"whole"
    assert log.read_text().split() == [str(n) for n in range(STEPS)], "no step is done twice"
    assert [p.name for p in (store / "kind").iterdir()] == [folder.name]


def finish(process: subprocess.Popen[str]) -> Path:
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    return Path(said.strip())


def test_two_processes_that_want_one_artifact_build_it_once(tmp_path):
    store, log = tmp_path / "store", tmp_path / "log"
    both = [run(store, log, -1, "together") for _ in range(2)]
    folders = [finish(process) for process in both]
    assert folders[0] == folders[1]
    assert log.read_text().split() == [str(n) for n in range(STEPS)]
    assert len(contents(folders[0])["all.bin"]) == 1000 * STEPS


def test_a_kill_before_the_rename_costs_nothing(store, monkeypatch):
    calls = []

    def build(folder: Path, inputs: Mapping[str, Path]) -> None:
        calls.append(1)
        (folder / WORK).mkdir(exist_ok=True)
        write("text")(folder, inputs)

    def killed(part: Path, folder: Path) -> None:
        raise KeyboardInterrupt

    step = make(build)
    with monkeypatch.context() as patch:
        patch.setattr(artifacts, "rename_durably", killed)
        with pytest.raises(KeyboardInterrupt):
            store.get(step)
    assert not store.is_done(step)
    folder = Store(store.root).get(step)
    assert len(calls) == 1
    assert not (folder / WORK).exists()


def test_a_kill_while_the_manifest_is_written_costs_nothing_later(store):
    step = make(write("text"))
    part = store.folder(step).with_name(store.folder(step).name + ".part")
    part.mkdir(parents=True)
    (part / f"{MANIFEST}.7.part").write_text('{"half')
    folder = store.get(step)
    assert sorted(store.manifest(step)["files"]) == ["other.txt", "sub/file.txt"]
    assert not list(folder.glob("*.part"))


@pytest.mark.parametrize("left", ["a build", "an earlier run"])
def test_another_artifacts_manifest_is_no_manifest_of_this_one(store, left):
    def build(folder: Path, inputs: Mapping[str, Path]) -> None:
        write("text")(folder, inputs)
        if left == "a build":
            (folder / MANIFEST).write_text('{"key": "of another"}')

    step = make(build)
    part = store.folder(step).with_name(store.folder(step).name + ".part")
    part.mkdir(parents=True)
    if left == "an earlier run":
        (part / MANIFEST).write_text('{"key": "of another"}')
    store.get(step)
    assert sorted(store.manifest(step)["files"]) == ["other.txt", "sub/file.txt"]
    Store(store.root).get(step)  # another process verifies it


# Damage -------------------------------------------------------------------------------


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


@pytest.mark.parametrize("damage", [flip, truncate, Path.unlink])
@pytest.mark.parametrize("name", ["sub/file.txt", "other.txt"])
def test_a_damaged_file_is_refused_and_the_remedy_works(store, damage, name):
    below = make(write("text"), kind="below")
    above = make(write("above"), kind="above", inputs={"x": below})
    folder = store.get(below)
    damage(folder / name)
    for wanted in (below, above):
        with pytest.raises(ArtifactError) as caught:
            Store(store.root).get(wanted)
        message = str(caught.value)
        assert str(folder / name) in message
        assert f"delete {folder} and run again" in message
        assert "\n" not in message
    assert not store.is_done(above)
    for path in sorted(folder.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    folder.rmdir()
    assert contents(Store(store.root).get(above))["other.txt"] == b"other"


@pytest.mark.parametrize(
    "manifest", [None, "", '{"key": "', "[1]", "{}", '{"key": "KEY"}', '{"key": "KEY", "files": 3}']
)
def test_a_damaged_manifest_is_refused(store, manifest):
    step = make(write("text"))
    file = store.get(step) / MANIFEST
    file.unlink()
    if manifest is not None:
        file.write_text(manifest.replace("KEY", step.key))
    with pytest.raises(ArtifactError) as caught:
        Store(store.root).get(step)
    assert str(file) in str(caught.value)
    assert f"delete {file.parent} and run again" in str(caught.value)


def test_what_one_name_hides_another_does_not(store):
    """Two names of one key are two folders, each checked."""
    store.get(make(write("text")))
    folder = Store(store.root).get(make(write("text"), name="renamed"))
    again = Store(store.root)
    again.get(make())
    flip(folder / "other.txt")
    with pytest.raises(ArtifactError, match="renamed"):
        again.get(make(name="renamed"))


# A full disk --------------------------------------------------------------------------


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Mount a disk of 512 KiB, which takes root."""
    place = tmp_path / "disk"
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=512k", "tmpfs", str(place)]
    try:
        subprocess.run(command, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("this user cannot mount a small disk")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


NOISE = np.random.default_rng(0).random(200_000)


def _text(folder: Path) -> None:
    (folder / "x.txt").write_text("x" * NOISE.nbytes)


def _parquet(folder: Path) -> None:
    pq.write_table(pa.table({"x": NOISE}), folder / "x.parquet")


def _npy(folder: Path) -> None:
    np.save(folder / "x.npy", NOISE)


def _safetensors(folder: Path) -> None:
    from safetensors.numpy import save_file

    save_file({"x": NOISE}, folder / "x.safetensors")


def _checkpoint(folder: Path) -> None:
    import torch

    torch.save({"x": torch.from_numpy(NOISE)}, folder / "x.ckpt")


def _embeddings(folder: Path) -> None:
    from gotd.config.schemas import Chunking
    from gotd.data.pool import shard_files, write_pool
    from gotd.embedding.embed import embed_shards

    work, pool = folder / WORK / "embed", folder / WORK / "pool"
    pool.mkdir(exist_ok=True)
    parts = table_parts(["some words"] * 800, "mine", Columns())
    write_pool(parts, pool, Chunking("whole"))
    embedder = TfidfSvdEmbedder(np.arange(64), np.ones((64, 256), "f4"), 64)
    list(embed_shards(lambda: embedder, 256, shard_files(pool), folder, work, LocalEngine()))


@pytest.mark.parametrize(
    "fill",
    [_text, _parquet, _npy, _safetensors, _checkpoint, _embeddings],
    ids=lambda f: f.__name__,
)
def test_a_full_disk_is_one_error_and_the_run_resumes_after_it(small_disk, fill):
    def build(folder: Path, inputs: Mapping[str, Path]) -> None:
        (folder / WORK).mkdir(exist_ok=True)
        checkpoint = folder / WORK / "checkpoint"
        tries.append(checkpoint.exists())
        checkpoint.touch()
        fill(folder)

    tries: list[bool] = []
    store, step = Store(small_disk / "store"), make(build)
    with pytest.raises(ArtifactError) as caught:
        store.get(step)
    message = str(caught.value)
    assert str(store.root) in message
    assert "free some space and run the same command again" in message
    assert "\n" not in message
    assert caught.value.__cause__ is not None
    assert not store.folder(step).exists()
    subprocess.run(["mount", "-o", "remount,size=16m", str(small_disk)], check=True)
    assert len(contents(store.get(step))) >= 1
    assert tries == [False, True]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
@pytest.mark.parametrize("where", ["fsync", "manifest", "lock"])
def test_room_that_ends_late_keeps_the_checkpoints(store, monkeypatch, number, where):
    """Anywhere in the writing, the quota too; runs without the rights to mount."""

    def full(*_: Any, **__: Any) -> None:
        raise OSError(number, os.strerror(number))

    def build(folder: Path, inputs: Mapping[str, Path]) -> None:
        (folder / WORK).mkdir(exist_ok=True)
        tries.append((folder / WORK / "checkpoint").exists())
        (folder / WORK / "checkpoint").touch()
        write("text")(folder, inputs)

    tries: list[bool] = []
    step = make(build)
    owner, name = {
        "fsync": (os, "fsync"),
        "manifest": (artifacts, "write_json"),
        "lock": (os, "open"),
    }[where]
    with monkeypatch.context() as patch:
        patch.setattr(owner, name, full)
        with pytest.raises(ArtifactError, match="no space left"):
            store.get(step)
    assert not store.folder(step).exists()
    store.get(step)
    assert tries == ([False] if where == "lock" else [False, True])


def test_other_errors_pass_as_they_are(store):
    def build(folder: Path, inputs: Mapping[str, Path]) -> None:
        (folder / "absent").read_text()

    with pytest.raises(FileNotFoundError, match="absent"):
        store.get(make(build))


def test_a_long_step_is_logged_when_it_runs_and_when_it_is_built(tmp_path, monkeypatch, caplog):
    def lines(build):
        with caplog.at_level("INFO", logger="gotd.storage"):
            caplog.clear()
            step = Step(kind="rows", version=1, name="slow", parameters={}, build=build, inputs={})
            Store(tmp_path / build.__name__).get(step)
        return [record.getMessage() for record in caplog.records]

    def slow(folder, inputs):
        (folder / "all.bin").write_bytes(b"whole")
        for _ in range(1000):
            if caplog.records:
                return
            time.sleep(0.01)

    def quick(folder, inputs):
        (folder / "all.bin").write_bytes(b"whole")

    assert lines(quick) == []
    monkeypatch.setattr(progress, "LONG_S", 0.01)
    assert lines(slow) == ["building rows slow", "built rows slow in 0 s"]
