"""Budgets: what is written, the rows that it is, and the tokens that rows have."""

from types import SimpleNamespace

import pytest
from omegaconf import OmegaConf

from gotd.pipeline import token_budget
from gotd.pipeline.amounts import Amount, parse_share, parse_tokens
from gotd.pipeline.permille import in_rows
from gotd.pipeline.token_budget import TokenBudget, rows_reaching


@pytest.mark.parametrize(
    ("given", "tokens"),
    [("1", 1), ("1_000", 1_000), (" 2M ", 2_000_000), ("500k", 500_000), ("1.5K", 1_500)]
    + [("3b", 3_000_000_000), ("0.001k", 1)],
)
def test_a_number_of_tokens_is_read(given, tokens):
    assert parse_tokens(given, "minilm") == Amount(tokens, "tokens", "minilm")


@pytest.mark.parametrize("given", ["0", "0.0004k", "-1", "1e3", "2T", "", "1__0", "9" * 20, "k"])
def test_no_number_of_tokens_is_refused(given):
    with pytest.raises(ValueError, match="--tokens must be a number"):
        parse_tokens(given, "minilm")


@pytest.mark.parametrize("unit", ["tokens", "share"])
def test_a_label_is_what_was_given(unit):
    given = ("2M", "500k", "1234", "3B") if unit == "tokens" else ("5%", "0.1%", "100%")
    read = (lambda one: parse_tokens(one, "minilm")) if unit == "tokens" else parse_share
    assert tuple(read(one).label for one in given) == given


@pytest.mark.parametrize(("budget", "rows"), [(1, 1), (3, 1), (5, 2), (100, 40), (1000, 400)])
def test_thousandths_are_rows_of_the_pool_and_one_at_least(budget, rows):
    config = OmegaConf.create(
        {"budget_unit": "permille", "budget": budget, "rank_rows": 2 * budget}
    )
    source = SimpleNamespace(name="mix", count=lambda role: 400)
    found = in_rows(config, source)
    assert (found.budget, found.rank_rows) == (rows, max(1, round(0.8 * budget)))
    assert config.budget == budget


@pytest.mark.parametrize(
    ("tokens", "rows", "reached"),
    [(1, 1, 3), (3, 1, 3), (4, 2, 4), (8, 4, 8), (9, 5, 13), (13, 5, 13), (14, 5, 13)],
)
def test_rows_are_taken_until_they_have_the_tokens(tokens, rows, reached):
    """Rows of 3, 1, 2, 2 and 5 tokens, in blocks of two."""
    texts = [["a b c", "d"], ["e f", "g h"], ["i j k l m"]]
    counted = rows_reaching(tokens, texts, lambda block: [len(text.split()) for text in block])
    assert counted == (rows, reached)


def test_a_token_budget_may_be_passed_by_its_last_row_and_not_missed(monkeypatch):
    """Rows of 3, 1 and 2 tokens."""
    ranked = SimpleNamespace(texts=lambda: [["a b c", "d"], ["e f"]], candidates=[[0] * 3])
    counter = [lambda block: [len(text.split()) for text in block]]
    monkeypatch.setattr(token_budget, "token_counter", lambda name: counter[0])

    def rows(tokens):
        return TokenBudget(tokens, 1, None, "minilm").rows(ranked, {})

    assert [rows(tokens) for tokens in (2, 3, 4, 5, 6)] == [(1, 3), (1, 3), (2, 4), (3, 6), (3, 6)]
    with pytest.raises(ValueError, match="the 3 rows of the ranking have 6 tokens, fewer than"):
        rows(7)
