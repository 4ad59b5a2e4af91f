"""Links that lead nowhere, devices, pipes, and places where no file can be created."""

from __future__ import annotations

import pytest

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
