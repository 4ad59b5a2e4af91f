"""A known mix: roles are disjoint, draws differ, shares are as stated, and errors name a remedy."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from pathlib import Path

import pyarrow.compute as pc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gotd.data.base import read_all
from gotd.data.mix import Mix
from gotd.data.passages import ROLE_SHARES, DrawnPart, read_domains
from gotd.storage.keys import source_identity

SMALL = {
    "general": ("films", "news"),
    "rare": ("biology",),
    "rare_share": 0.02,
    "pretraining_chars": 10_000,
    "pool_chars": 30_000,
    "target_chars": 1_500,
    "evaluation_texts": 20,
}


def mix(folder: Path, **changes) -> Mix:
    return Mix(str(folder), **{**SMALL, **changes})


def ids(parts: Iterable[DrawnPart]) -> set[str]:
    return set(read_all(list(parts))["id"].to_pylist())


def texts(source: Mix, role: str, domains: Iterable[str]) -> set[str]:
    return {name for d in domains for name in source.texts_of(d, role)["id"].to_pylist()}


def chars_of(source: Mix, parts: Iterable[DrawnPart]) -> dict[str, int]:
    rows = read_all(list(parts))
    return {
        domain: pc.sum(
            pc.utf8_length(rows["text"].filter(pc.equal(rows["domain"], domain)))
        ).as_py()
        for domain in source.domains
    }


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    other=st.integers(0, 2**31),
    base_seed=st.integers(0, 2**31),
    rare_share=st.sampled_from([0.0, 0.01, 0.02]),
)
def test_no_text_has_two_roles_in_any_two_draws(mix_folder, seed, other, base_seed, rare_share):
    one = mix(mix_folder, seed=seed, base_seed=base_seed, rare_share=rare_share)
    two = mix(mix_folder, seed=other, base_seed=base_seed, rare_share=rare_share)
    base = ids(one.pretraining())
    assert base == ids(two.pretraining())
    for draw in (one, two):
        pool = ids(draw.candidates())
        target, held_out = (texts(draw, r, draw.domains) for r in ("target", "evaluation"))
        assert len(held_out) == 3 * SMALL["evaluation_texts"]
        assert not base & pool
        assert not (base | pool) & (target | held_out)
        assert not target & held_out
        assert not base & ids(draw.held_out())
    # Not even texts of different draws meet in two roles that a model must not confuse.
    assert not ids(one.candidates()) & texts(two, "evaluation", two.domains)


def test_the_shares_of_the_mix_are_as_stated(mix_folder):
    source = mix(mix_folder)
    assert source.shares == {"films": 0.49, "news": 0.49, "biology": 0.02}
    longest = 200  # no passage has more characters
    for parts, total in ((source.candidates(), 30_000), (source.pretraining(), 10_000)):
        for domain, chars in chars_of(source, parts).items():
            assert 0 <= chars - source.shares[domain] * total < longest, domain
    assert [part.label for part in source.candidates()] == ["films", "news", "biology"]
    none = mix(mix_folder, rare_share=0.0)
    assert [part.label for part in none.candidates()] == ["films", "news"]


def test_draws_differ_by_what_the_identity_expects(mix_folder):
    """Mean over pairs of draws: a share with a standard error of about .01."""
    draws = [mix(mix_folder, seed=seed) for seed in range(12)]
    overlap = draws[0].identity()["overlap"]
    pools = [ids(draw.candidates()) for draw in draws]
    ends = [texts(d, "target", ["news"]) | texts(d, "evaluation", ["news"]) for d in draws]
    for sets, expected in (
        ([{i for i in pool if i.startswith("news")} for pool in pools], overlap["pool"]["news"]),
        (ends, overlap["target"]["news"]),
    ):
        shared = [len(a & b) / len(a) for a in sets for b in sets if a is not b]
        assert sum(shared) / len(shared) == pytest.approx(expected, abs=0.05)
        assert all(share < 1 for share in shared)


def test_pre_training_has_one_identity_for_all_draws(mix_folder):
    one, two = (mix(mix_folder, seed=seed) for seed in (1, 2))
    assert source_identity(one, "pretraining") == source_identity(two, "pretraining")
    for part in ("candidates", "target"):
        assert source_identity(one, part) != source_identity(two, part)
    assert [p.identity() for p in one.pretraining()] == [p.identity() for p in two.pretraining()]
    other = mix(mix_folder, seed=1, base_seed=1)
    assert source_identity(other, "pretraining") != source_identity(one, "pretraining")
    assert ids(other.pretraining()) != ids(one.pretraining())
    assert ids(other.candidates()) == ids(one.candidates())
    assert str(mix_folder) not in str(one.identity())


def test_more_characters_with_one_seed_keep_what_fewer_drew(mix_folder):
    fewer, more = (ids(mix(mix_folder, pool_chars=n).candidates()) for n in (10_000, 25_000))
    assert fewer < more


def test_a_file_of_another_domain_changes_nothing(mix_folder, tmp_path):
    shutil.copytree(mix_folder, tmp_path, dirs_exist_ok=True)
    (tmp_path / "candidates" / "law.jsonl").write_text('{"text": "a law"}\n')
    before, after = mix(mix_folder), mix(tmp_path)
    assert before.identity() == after.identity()
    assert ids(before.candidates()) == ids(after.candidates())


def test_roles_have_their_share_of_each_domain(mix_folder):
    files = tuple((str(f), "") for f in sorted((mix_folder / "candidates").iterdir()))
    for by_role in read_domains(files).values():
        rows = sum(len(passages.ids) for passages in by_role.values())
        assert rows == 400
        for role, share in ROLE_SHARES.items():
            assert len(by_role[role].ids) / rows == pytest.approx(share, abs=0.07)


@pytest.mark.parametrize(
    ("changes", "names"),
    [
        ({"rare": ("biology", "geology")}, "no passages of the domain 'geology'; it has biology, "),
        ({"pool_chars": 90_000}, "'films' has .* fewer than the 44,100 .* lower source.pool_chars"),
        ({"pretraining_chars": 60_000}, "lower source.pretraining_chars or add passages"),
    ],
)
def test_what_the_folder_lacks_is_named_before_anything_is_read(mix_folder, changes, names):
    with pytest.raises((FileNotFoundError, ValueError), match=names):
        mix(mix_folder, **changes).identity()
    assert mix(mix_folder, **changes).count("candidates") is None or "pretraining" in str(changes)


@pytest.mark.parametrize(
    ("changes", "domain", "names"),
    [
        ({}, "geology", "no domain 'geology'; it has films, news, biology: add it to source.rare"),
        ({"target_chars": 50_000}, "news", "'news' has .* fewer than source.target_chars"),
        ({"evaluation_texts": 300}, "news", "beside 300 evaluation texts"),
    ],
)
def test_texts_that_cannot_be_had_are_an_error(mix_folder, changes, domain, names):
    with pytest.raises((FileNotFoundError, ValueError), match=names):
        mix(mix_folder, **changes).texts_of(domain, "target")


@pytest.mark.parametrize(
    ("changes", "names"),
    [
        ({"rare_share": 0.05}, "rare_share must lie in"),
        ({"rare": ()}, "source rare is empty"),
        ({"rare": ("news",)}, "general and rare name 'news' twice"),
        ({"pool_chars": 0}, "pool_chars must be at least 1"),
    ],
)
def test_settings_that_cannot_be_are_refused(mix_folder, changes, names):
    with pytest.raises(ValueError, match=names):
        mix(mix_folder, **changes)


def test_a_folder_that_is_not_there_is_named(tmp_path):
    for path, names in (
        ("", "set DATA"),
        (str(tmp_path / "none"), "no folder"),
        (str(tmp_path), "no candidate files"),
    ):
        with pytest.raises(FileNotFoundError, match=names):
            mix(Path(path) if path else "").identity()


def test_the_labelled_tasks_are_those_of_the_folder(mix_folder, tmp_path):
    shutil.copytree(mix_folder, tmp_path, dirs_exist_ok=True)
    file = tmp_path / "domain" / "genes" / "train.jsonl"
    file.parent.mkdir(parents=True)
    file.write_text('{"text": "a gene", "label": 0}\n')
    source = mix(tmp_path)
    assert source.tasks() == ["genes"]
    assert source.split("genes", "train").num_rows == 1
    assert list(source.identity()["tasks"]) == ["genes"]
    assert (source.count("genes/train"), source.count("evaluation")) == (1, 20)


def test_real_passages_make_the_default_mix(data_folder):
    one, two = (Mix(str(data_folder), seed=seed) for seed in (1, 2))
    base, pools = ids(one.pretraining()), [ids(draw.candidates()) for draw in (one, two)]
    assert not base & (pools[0] | pools[1])
    overlap = one.identity()["overlap"]["pool"]
    for domain in one.domains:
        first, second = (
            {i for part in draw.candidates() if part.label == domain for i in part.ids.to_pylist()}
            for draw in (one, two)
        )
        assert len(first & second) / len(first) == pytest.approx(overlap[domain], abs=0.05)
    for domain in ("movie_reviews", *one.rare):
        held_out = one.texts_of(domain, "evaluation")
        assert held_out.num_rows == 500
        assert not set(held_out["id"].to_pylist()) & (base | pools[0] | pools[1])
