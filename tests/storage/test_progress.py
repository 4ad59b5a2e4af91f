"""Steps report to whoever watches, and to nobody otherwise."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from gotd.engine.local import LocalEngine
from gotd.storage import progress
from gotd.storage.artifacts import Step, Store


class Recorder:
    """Collects what it is told."""

    def __init__(self) -> None:
        self.events: list[object] = []

    @contextmanager
    def __call__(self, label: str, total: int | None) -> Iterator[progress.Tick]:
        self.events.append((label, total))
        yield self.events.append
        self.events.append("end")


def steps() -> Step:
    def read(folder, inputs):
        (folder / "rows").write_text("seven")
        progress.tick(5)
        progress.tick(2)

    def score(folder, inputs):
        for _ in LocalEngine(workers=2).map(lambda row: progress.tick(1), range(3)):
            pass

    below = Step("rows", 1, "mine", {}, read)
    count = lambda inputs: len((inputs["rows"] / "rows").read_text())  # noqa: E731
    return Step("scores", 1, "mine", {}, score, {"rows": below}, rows=count)


def test_the_watcher_sees_each_built_step_and_its_rows(tmp_path):
    recorder = Recorder()
    with progress.watch(recorder):
        Store(tmp_path).get(steps())
        assert recorder.events == [
            *(("rows mine", None), 5, 2, "end"),
            *(("scores mine", 5), 1, 1, 1, "end"),  # threads of an engine tick, too
        ]
        recorder.events.clear()
        Store(tmp_path).get(steps())
    assert recorder.events == [], "finished steps are not announced"


def test_without_a_watcher_ticks_do_nothing(tmp_path):
    progress.tick(3)
    Store(tmp_path).get(steps())
    progress.tick(3)
