"""Links that lead nowhere, devices, pipes, and places where no file can be created."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest
from tests.faults.conftest import ROWS, write_rows

from gotd.cli.main import main
from gotd.pipeline.output import cannot_write
from gotd.storage.files import locked

ROWS_OPTIONS = ("--target", "--candidates", "--exclude", "--removed", "--store", "--weights")


@pytest.fixture
def loop(tmp_path):
    """Two links that lead to each other."""
    one, other = tmp_path / "a.jsonl", tmp_path / "b.jsonl"
    one.symlink_to(other)
    other.symlink_to(one)
    return one


@pytest.mark.parametrize("option", [*ROWS_OPTIONS, "--replay", "--out"])
def test_a_link_that_leads_to_itself_is_named(here, loop, option):
    given = f"{loop}:20%" if option == "--replay" else str(loop)
    status, printed = here.select(option, given)
    assert status == 2
    assert printed.splitlines()[-1] == (
        f"gotd select: {loop} is a link that leads to itself; remove it"
    )


def test_a_link_above_a_place_is_named(here, loop):
    assert here.select("--out", str(loop / "x"))[1].splitlines()[-1] == (
        f"gotd select: {loop} is a link that leads to itself; remove it"
    )


def test_a_lock_that_cannot_be_made_is_not_held_by_another(tmp_path):
    """`/proc` answers as if the folder were not there; so no wait can help."""
    for wait in (True, False):
        with pytest.raises(FileNotFoundError), locked(Path("/proc/.x.lock"), wait=wait):
            pass
    lock = tmp_path / "lock"
    with locked(lock), pytest.raises(BlockingIOError), locked(lock, wait=False):
        pass


def test_an_output_where_no_file_can_be_made(here):
    status, printed = here.select("--out", "/proc/x.jsonl")
    assert status == 2
    assert printed.splitlines()[-1] == (
        "gotd select: cannot write /proc/x.gotd: No such file or directory; choose another --out"
    )


def test_what_is_special_in_a_folder_is_called_by_its_kind(here):
    pool = here.folder / "pool"
    write_rows(pool / "p.jsonl", ROWS)
    (pool / "z.jsonl").symlink_to("/dev/zero")
    (pool / "n.jsonl").symlink_to("nothing")
    os.mkfifo(pool / "f.jsonl")
    status, printed = here.select(pool=pool)
    assert status == 0
    assert "z.jsonl is left out: it is a link to a device" in printed
    assert "n.jsonl is left out: it is a link to nothing" in printed
    assert "f.jsonl is left out: it is a pipe" in printed


@pytest.mark.parametrize("name", ["o.jsonl", "o", "o.gotd"])
def test_a_pipe_or_socket_is_never_replaced(here, name):
    place = here.folder / name
    os.mkfifo(place)
    out = "o.jsonl" if name == "o.gotd" else name
    status, printed = here.select("--overwrite", out=out)
    assert status == 2
    assert f"--out {place} is a pipe, which is never replaced" in printed
    assert place.is_fifo()
    assert not list(here.folder.glob("*.gotd.*"))


def test_a_link_to_a_name_of_another_format_is_refused(here):
    link = here.folder / "y.jsonl"
    link.symlink_to(here.folder / "target")
    status, printed = here.select(out="y.jsonl")
    assert status == 2
    assert f"{link} is a link to {here.folder / 'target'}, whose name ends in another" in printed
    assert not (here.folder / "target").exists()
    link.unlink()
    link.symlink_to(here.folder / "real.jsonl")
    assert here.select(out="y.jsonl")[0] == 0
    assert (here.folder / "real.jsonl").is_file()


@pytest.mark.parametrize(("out", "name"), [("Y.JSONL", "Y.jsonl"), ("y.Jsonl.GZ", "y.jsonl.gz")])
def test_an_output_in_upper_case_is_refused_with_a_hint(here, out, name):
    """It became a folder of that name."""
    status, printed = here.select(out=out)
    assert status == 2
    assert printed.splitlines()[-1].endswith(f"endings are in lower case; write {name}")
    assert not (here.folder / out).exists()


def test_an_input_in_upper_case_has_a_hint(here):
    for name in ("a.jsonl", "B.JSONL"):
        write_rows(here.folder / "pool" / name, ROWS)
    status, printed = here.select("--method", "random", pool=here.folder / "pool")
    assert status == 0
    assert "B.JSONL is left out: its name ends in no known format; endings are in low" in printed


def refuse(patch: pytest.MonkeyPatch, part_of: str, number: int) -> None:
    """Let each file that is opened for writing with a name like this fail."""
    opened = Path.open

    def open_(path: Path, mode: str = "r", *more: Any, **named: Any) -> Any:
        if "w" in mode and path.name.startswith(part_of):
            raise OSError(number, os.strerror(number), str(path))
        return opened(path, mode, *more, **named)

    def unlink(path: Path, missing_ok: bool = False) -> None:
        if path.name.startswith(part_of):
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))
        removed(path, missing_ok)

    removed = Path.unlink
    patch.setattr(Path, "open", open_)
    patch.setattr(Path, "unlink", unlink)


@pytest.mark.parametrize("option", ["--weights", "--removed"])
@pytest.mark.parametrize(
    ("number", "said"),
    [
        (errno.EROFS, "cannot write {}: Read-only file system; choose another {}"),
        (errno.ENOSPC, "no space left for {}; free some space and run the same command again"),
    ],
)
def test_the_option_and_the_file_that_failed_are_named(here, monkeypatch, option, number, said):
    (here.folder / "there").mkdir()
    place = here.folder / "there" / "ww.csv"
    refuse(monkeypatch, "ww.csv", number)
    status, printed = here.select(option, str(place))
    assert status == 2
    expected = said.format(f"{option} {place}", option)
    assert printed.splitlines()[-1] == f"gotd select: {expected}"


def test_weights_alone_are_named_by_their_option(here, monkeypatch, capsys):
    place = here.folder / "ww.csv"
    arguments = ["select", "--target", here.target, "--candidates", here.pool]
    arguments += ["--weights", place, "--store", here.folder / "store"]
    refuse(monkeypatch, "ww.csv", errno.ENOSPC)
    assert main([str(one) for one in arguments]) == 2
    assert f"no space left for --weights {place}; free" in capsys.readouterr().err
    monkeypatch.undo()
    place.write_text("mine")
    assert main([str(one) for one in arguments]) == 2
    assert "choose another --weights, or give --overwrite" in capsys.readouterr().err


@pytest.mark.parametrize("option", ["--weights", "--removed"])
def test_a_link_stands_for_the_file_it_leads_to(here, option):
    """The link was replaced by the file, as that of --out never was."""
    link, place = here.folder / "link.csv", here.folder / "disk" / "real.csv"
    link.symlink_to(place)
    status, printed = here.select(option, str(link))
    assert (status, f"there is no folder {place.parent}" in printed) == (2, True)
    place.parent.mkdir()
    for more in ((), ("--seed", "1"), ("--overwrite",)):
        if more == ("--overwrite",):
            place.write_text("mine")
        assert here.select(option, str(link), *more)[0] == 0
        assert link.is_symlink()
        assert "text" in place.read_text().splitlines()[0]
    other = here.folder / "other.csv"
    other.symlink_to(place)
    status, printed = here.select("--weights", str(link), "--removed", str(other))
    assert (status, "--weights and --removed name one file" in printed) == (2, True)
    link.unlink()
    link.symlink_to(here.folder / "real.txt")
    status, printed = here.select(option, str(link))
    assert (status, "whose name ends in another way" in printed) == (2, True)
    assert not (here.folder / "real.txt").exists()


def test_the_unfinished_file_of_arrow_is_not_named():
    words = "Failed to open local file 'ww.parquet.part'. Detail: [errno 30] Read-only file system"
    error = cannot_write(OSError(errno.EROFS, words), Path("ww.parquet"), "--weights")
    assert str(error) == (
        "cannot write --weights ww.parquet: Read-only file system; choose another --weights"
    )
