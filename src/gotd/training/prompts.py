"""Prompts with responses as tokens: plain, or by the tokenizer's own chat template."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

Tokens = list[int]


@dataclass(frozen=True)
class PromptFormat:
    """How a prompt and its response become one row of tokens.

    Args:
        chat_template: Use the template of the tokenizer. Otherwise the start token, the prompt,
            ``separator``, the response and the end token follow one another.
        separator: Text after the prompt.
        max_length_tokens: Tokens of a row. Of a longer one the beginning of the prompt is cut,
            but not below half of the row; then the end of the response.
    """

    chat_template: bool
    separator: str
    max_length_tokens: int


def encode_prompts(tokenizer: Any, prompts: Sequence[str], how: PromptFormat) -> list[Tokens]:
    """Return the tokens of prompts, up to where a response begins; uncut.

    Raises:
        ValueError: If the tokenizer has no chat template but one is asked for.
    """
    if not how.chat_template:
        texts = [f"{prompt}{how.separator}" for prompt in prompts]
        return [[*_start(tokenizer), *row] for row in _plain(tokenizer, texts)]
    return [_chat(tokenizer, [_turn("user", prompt)], True) for prompt in prompts]


def encode_pairs(
    tokenizer: Any, prompts: Sequence[str], responses: Sequence[str], how: PromptFormat
) -> list[tuple[Tokens, int]]:
    """Return the tokens of prompts with responses, and the position of each response.

    A response ends with the end token, or with what the chat template puts after a turn.

    Args:
        tokenizer: The model's tokenizer.
        prompts: ``[n]`` prompts.
        responses: ``[n]`` responses.
        how: The format.

    Returns:
        ``[n]`` rows of at most ``max_length_tokens``, and where their responses begin: at 1 or
        later.

    Raises:
        ValueError: If the tokenizer has no chat template but one is asked for, or its template
            does not write a prompt as the beginning of the prompt with its response.
    """
    begins = encode_prompts(tokenizer, prompts, how)
    if how.chat_template:
        rests = [
            _rest(tokenizer, prompt, response, begin)
            for prompt, response, begin in zip(prompts, responses, begins, strict=True)
        ]
    else:
        rests = [[*row, tokenizer.eos_token_id] for row in _plain(tokenizer, responses)]
    return [_cut(begin, rest, how) for begin, rest in zip(begins, rests, strict=True)]


def _cut(prompt: Tokens, response: Tokens, how: PromptFormat) -> tuple[Tokens, int]:
    """Cut a row to its length; at least one token of the prompt stays."""
    half = max(1, how.max_length_tokens // 2)
    kept = max(half, how.max_length_tokens - len(response))
    prompt = cut_prompt(prompt, kept)
    return [*prompt, *response[: how.max_length_tokens - len(prompt)]], len(prompt)


def cut_prompt(prompt: Tokens, tokens: int) -> Tokens:
    """Return the end of a prompt, of at most ``tokens``, with its first token in front."""
    return prompt if len(prompt) <= tokens else [prompt[0], *prompt[len(prompt) - tokens + 1 :]]


def _plain(tokenizer: Any, texts: Sequence[str]) -> list[Tokens]:
    return tokenizer(list(texts), add_special_tokens=False, verbose=False)["input_ids"]


def _start(tokenizer: Any) -> Tokens:
    """Return the start token; a model without one is started by the end token."""
    start = tokenizer.bos_token_id
    return [tokenizer.eos_token_id if start is None else start]


def _turn(role: str, text: str) -> dict[str, str]:
    return {"role": role, "content": text}


def _chat(tokenizer: Any, turns: list[dict[str, str]], answer: bool) -> Tokens:
    if tokenizer.chat_template is None:
        raise ValueError(
            "chat_template=true, but the tokenizer of the model has no chat template; set "
            "chat_template=false or use a model with one"
        )
    found = tokenizer.apply_chat_template(
        turns, add_generation_prompt=answer, tokenize=True, return_dict=True
    )
    return list(found["input_ids"])


def _rest(tokenizer: Any, prompt: str, response: str, begin: Tokens) -> Tokens:
    turns = [_turn("user", prompt), _turn("assistant", response)]
    row = _chat(tokenizer, turns, False)
    if len(row) <= len(begin) or row[: len(begin)] != begin:
        raise ValueError(
            "the chat template does not write a prompt as the beginning of the prompt with its "
            "response, so the response cannot be told apart; set chat_template=false"
        )
    return row[len(begin) :]
