"""What a process of a sweep does beside its cells."""

from __future__ import annotations

import gc

from gotd.runs import sweep


def test_libraries_are_left_out_of_collections_once():
    try:
        sweep._freeze_libraries()
        frozen = gc.get_freeze_count()
        assert frozen > 10_000
        held = [[number] for number in range(1000)]
        sweep._freeze_libraries()
        assert gc.get_freeze_count() <= frozen
        assert held
    finally:
        gc.unfreeze()
