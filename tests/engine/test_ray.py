"""A local Ray gives what this machine gives, bit for bit, also when a worker is killed."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
import pytest
import torch

from gotd import GOTD
from gotd.cli.main import main
from gotd.engine.local import LocalEngine
from gotd.engine.ray import BUFFERED_PER_WORKER, RayEngine, _Actor, _groups

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
ray = pytest.importorskip("ray")

SOURCES = str(Path(__file__).parents[2] / "src")


@pytest.fixture(scope="module")
def cluster() -> Iterator[RayEngine]:
    """Start a Ray on this machine, with CPUs to spare, and see that it ends."""
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = SOURCES
    try:
        ray.init(
            address="local",
            num_cpus=6,
            include_dashboard=False,
            object_store_memory=100 * 2**20,
            log_to_driver=False,
            logging_level="error",
        )
        yield RayEngine(workers=2)
    finally:
        ray.shutdown()
        if before is None:
            os.environ.pop("PYTHONPATH", None)
        else:
            os.environ["PYTHONPATH"] = before


def kill_once(marker: Path) -> None:
    """End this worker process the hard way, the first time that it is asked."""
    try:
        marker.touch(exist_ok=False)
    except FileExistsError:
        return
    os.kill(os.getpid(), signal.SIGKILL)


def square(marker: Path | None, item: int) -> int:
    if item == 13 and marker is not None:
        kill_once(marker)
    return item * item


def with_tool(marker: Path | None, tool: dict, item: int) -> tuple[int, str]:
    tool["calls"] = tool.get("calls", 0) + 1
    return square(marker, item), tool["name"]


def variables(_: object = None) -> dict[str, str | None]:
    names = ("GOTD_HUB", "HF_HOME", "HF_HUB_OFFLINE", "HF_ENDPOINT", "HF_TOKEN")
    return {name: os.environ.get(name) for name in names}


def make_tool() -> dict:
    return {"name": "made in a worker"}


def fail(item: int) -> int:
    if item == 7:
        raise ValueError("item 7 is bad")
    return item


def test_results_come_in_order_and_a_killed_worker_loses_nothing(cluster, tmp_path):
    assert list(cluster.map(partial(square, None), range(200))) == [i * i for i in range(200)]
    assert list(cluster.map(partial(square, None), [])) == []
    marker = tmp_path / "killed"
    found = list(cluster.map(partial(square, marker), iter(range(40))))
    assert found == [i * i for i in range(40)]
    assert marker.exists()


def test_an_error_comes_as_it_was_raised(cluster):
    results = cluster.map(fail, range(20))
    with pytest.raises(ValueError, match=r"^item 7 is bad$"):
        list(results)


def test_a_long_iterable_is_not_held(cluster):
    drawn = []

    def items() -> Iterator[int]:
        for item in range(100):
            drawn.append(item)
            yield item

    results = cluster.map(partial(square, None), items())
    assert next(results) == 0
    assert len(drawn) <= (BUFFERED_PER_WORKER + 1) * cluster.workers
    results.close()


def test_actors_keep_their_tool_and_one_that_is_killed_loses_nothing(cluster, tmp_path):
    assert list(cluster.map_with(make_tool, partial(with_tool, None), [])) == []
    marker = tmp_path / "killed"
    found = list(cluster.map_with(make_tool, partial(with_tool, marker), range(24)))
    assert found == [(i * i, "made in a worker") for i in range(24)]
    assert marker.exists()


def test_an_actor_s_error_comes_as_it_was_raised(cluster):
    with pytest.raises(ValueError, match=r"^item 7 is bad$"):
        list(cluster.map_with(make_tool, lambda _, item: fail(item), range(20)))


@pytest.mark.parametrize("several", [False, True])
def test_an_actor_runs_as_many_calls_at_once_as_its_tool_says(several):
    class Single:
        running = most = 0

    class Several(Single):
        calls_at_once = 2

        def close(self) -> None:
            pass

    def count(tool: Single, item: int) -> int:
        with counting:
            tool.running += 1
            tool.most = max(tool.most, tool.running)
        time.sleep(0.02)
        with counting:
            tool.running -= 1
        return id(tool)

    counting = threading.Lock()
    actor = _Actor(Several if several else Single, count, torch.get_num_threads())
    with ThreadPoolExecutor(6) as threads:
        tools = set(threads.map(actor.call, range(20)))
    assert tools == {id(actor._tool)}, "a tool is made once"
    assert actor._tool.most == (2 if several else 1)


def test_workers_ask_the_hub_that_this_process_asks(cluster, monkeypatch, tmp_path):
    # The cluster of these tests started before, with other variables.
    before = variables()
    given = {"GOTD_HUB": f"{tmp_path}/hub", "HF_HOME": f"{tmp_path}/home", "HF_HUB_OFFLINE": "1"}
    for name, value in {**given, "HF_TOKEN": "hf_secret"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    expected = {**given, "HF_ENDPOINT": "http://127.0.0.1:9", "HF_TOKEN": before["HF_TOKEN"]}
    assert list(cluster.map(variables, [0])) == [expected]
    monkeypatch.setenv("GOTD_HUB", f"{tmp_path}/another")
    expected["GOTD_HUB"] = f"{tmp_path}/another"
    assert list(cluster.map_with(variables, lambda tool, _: tool, [0])) == [expected]


def test_gpus_that_the_cluster_lacks_are_asked_for(cluster):
    engine = RayEngine(workers=2, gpus_per_worker=1.0)
    with pytest.raises(ValueError, match=r"has 0; leave out --device cuda"):
        list(engine.map_with(make_tool, partial(with_tool, None), range(3)))


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> Path:
    """Write a pool of several shards and a target."""
    folder = tmp_path_factory.mktemp("given")
    random = np.random.default_rng(0)
    words = np.array([f"w{i}" for i in range(300)])
    pool = [" ".join(random.choice(words[: 60 + i % 240], size=20)) for i in range(3000)]
    for number in (0, 5, 699, *range(1400, 2100)):  # the third shard of 700 rows is unreadable
        pool[number] = "!" * (number + 1)
    ids = [f"row-{i}" for i in random.permutation(3000)]
    rows = pa.table({"id": ids, "text": pool})
    (folder / "pool").mkdir()
    pq.write_table(rows[:900], folder / "pool" / "a.parquet", row_group_size=200)
    lines = [json.dumps(row) + "\n" for row in rows[900:1700].to_pylist()]
    (folder / "pool" / "b.jsonl").write_text("".join(lines), "utf-8")
    pa_csv.write_csv(rows[1700:1900], folder / "pool" / "c.csv")
    pq.write_table(rows[1900:], folder / "pool" / "d.parquet")
    target = [" ".join(random.choice(words[200:], size=15)) for _ in range(40)]
    pq.write_table(pa.table({"text": target}), folder / "mine.parquet")
    return folder


def arguments(files: Path, out: Path, method: str, *more: str) -> list[str]:
    return [
        *("select", "--target", str(files / "mine.parquet"), "--budget", "300"),
        *("--candidates", str(files / "pool"), "--method", method, "--explain"),
        *("--out", str(out), "--store", str(out.parent / f"store-{out.name}"), *more),
    ]


class Killer(threading.Thread):
    """Kills one embedding actor of this process's Ray while its pool is at work.

    Args:
        store: Its row ranges are marked here.
    """

    def __init__(self, store: Path) -> None:
        super().__init__(daemon=True)
        self.store = store
        self.killed: int | None = None
        self.over = threading.Event()

    def run(self) -> None:
        """Wait for the first finished range, then kill."""
        while self.killed is None and not self.over.wait(0.02):
            if list(self.store.glob("embeddings/*candidates*.part/.work/*-*")):
                for pid in descendants(os.getpid()):
                    if "ray::_Actor" in name_of(pid):
                        os.kill(pid, signal.SIGKILL)
                        self.killed = pid
                        return


def descendants(root: int) -> list[int]:
    parents = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            with contextlib.suppress(OSError):
                after_name = (folder / "stat").read_text().rpartition(")")[2]
                parents[int(folder.name)] = int(after_name.split()[1])
    found = [root]
    for pid in found:
        found += [child for child, parent in parents.items() if parent == pid]
    return found[1:]


def name_of(pid: int) -> str:
    try:
        return (Path("/proc") / str(pid) / "cmdline").read_text()
    except OSError:
        return ""


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="finds the worker to kill in /proc")
@pytest.mark.parametrize("method", ["got_d", "dsir"])
def test_a_selection_is_the_same_to_the_last_bit(cluster, files, tmp_path, monkeypatch, method):
    # Large enough to be scored in several blocks, small enough for a test.
    monkeypatch.setattr("gotd.data.pool.SHARD_ROWS", 700)
    monkeypatch.setattr("gotd.embedding.embed.ROWS_PER_RANGE", 128)
    monkeypatch.setattr("gotd.data.row_groups.RANGE_ROWS", 300)  # three ranges of a.parquet
    assert main(arguments(files, tmp_path / "local", method)) == 0
    killer = Killer(tmp_path / "store-ray")
    killer.start()
    assert main(arguments(files, tmp_path / "ray", method, "--engine", "ray")) == 0
    killer.over.set()
    killer.join()
    assert (killer.killed is not None) == (method == "got_d")  # dsir embeds nothing
    one, other = (tmp_path / name / "selected.parquet" for name in ("local", "ray"))
    assert one.read_bytes() == other.read_bytes()
    for kind in ("pool", "fitted_encoder", "embeddings", "pool_scores"):
        stored = [
            {
                path.relative_to(tmp_path / f"store-{name}"): path.read_bytes()
                for path in (tmp_path / f"store-{name}" / kind).rglob("*")
                if path.suffix in (".arrow", ".npy")
            }
            for name in ("local", "ray")
        ]
        assert stored[0] == stored[1]
        if kind == "embeddings" and method == "got_d":
            copies = {path.name for path in stored[0] if path.name.startswith("readable-")}
            assert copies == {"readable-rows-00000.arrow", "readable-embeddings-00000.npy"}


class Deadly:
    """A cluster on which a worker dies once at some functions, its work done and not reported.

    Args:
        engine: Does the work.
        markers: Folder that notes the deaths.
    """

    functions = ("_read", "_write", "fill_group")

    def __init__(self, engine: RayEngine, markers: Path) -> None:
        self.engine, self.markers = engine, markers
        self.map_with = engine.map_with
        markers.mkdir()

    def map(self, function, items):
        name = getattr(function, "__name__", "")
        if name in self.functions:
            function = partial(done_in_vain, self.markers / name, function)
        return self.engine.map(function, items)


def done_in_vain(marker: Path, function, item):
    result = function(item)
    kill_once(marker)
    return result


def test_workers_that_die_change_no_byte_of_any_step(cluster, files, tmp_path, monkeypatch):
    monkeypatch.setattr("gotd.data.pool.SHARD_ROWS", 700)
    monkeypatch.setattr("gotd.embedding.embed.ROWS_PER_RANGE", 512)
    monkeypatch.setattr("gotd.storage.artifacts.MANY_BYTES", 0)
    monkeypatch.setattr("gotd.transport.tree.GROUPS", 2)
    deadly = Deadly(cluster, tmp_path / "markers")
    stored, selected = {}, {}
    for name, engine in (("local", LocalEngine(3)), ("ray", deadly)):
        store = tmp_path / name
        selector = GOTD(unit="fixed", length_chars=60, engine=engine, store=store)
        rows = pq.read_table(files / "mine.parquet")["text"].to_pylist()
        selected[name] = selector.fit(rows, files / "pool").select(300).to_pandas()
        stored[name] = {
            path.relative_to(store): path.read_bytes()
            for path in store.rglob("*")
            if path.is_file() and path.name not in ("manifest.json",) and ".locks" not in str(path)
        }
    assert selected["ray"].equals(selected["local"])
    assert stored["ray"] == stored["local"]
    kinds = {path.parts[0] for path in stored["ray"]}
    assert kinds >= {"pool", "left_out", "kept", "embeddings", "pool_scores"}
    assert {path.name for path in deadly.markers.iterdir()} == set(Deadly.functions)


def test_a_bad_row_is_the_same_line(cluster, files, tmp_path, capsys):
    shutil.copytree(files, tmp_path / "given")
    with (tmp_path / "given" / "pool" / "b.jsonl").open("a", encoding="utf-8") as file:
        file.write('{"id": "bad", "text": 7}\n')
    lines = []
    for engine in ("local", "ray"):
        given = arguments(tmp_path / "given", tmp_path / engine, "dsir", "--engine", engine)
        assert main(given) == 2
        lines.append(capsys.readouterr().err.splitlines()[-1])
        assert not (tmp_path / engine).exists()
    assert "b.jsonl" in lines[0]
    assert "801" in lines[0]
    assert lines[0] == lines[1]


def test_a_cluster_that_is_not_there_is_one_line(capsys, files, tmp_path):
    ray.shutdown()  # the last test of this module: the fixture's Ray is not needed any more
    more = ("--engine", "ray", "--ray-address", "127.0.0.1:1")
    assert main(arguments(files, tmp_path / "out", "dsir", *more)) == 2
    assert "no Ray cluster at '127.0.0.1:1'" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_groups_are_consecutive():
    assert list(_groups(range(5), 2)) == [[0, 1], [2, 3], [4]]
