"""Row shapes: conversations, instructions and other kinds of rows whose turns make the text.

Each shape is one entry of `SHAPES`. It is found by the columns and values of a file's first
rows. A role selects among its turns.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from gotd.data.row_text import Row, named

SHAPES_VERSION = 2
"""Raise it when rows of a shape become other texts."""

Role = Literal["all", "user", "assistant"]
ROLES: tuple[Role, ...] = ("all", "user", "assistant")

USERS = frozenset({"user", "human", "prompter"})
ASSISTANTS = frozenset({"assistant", "gpt", "model", "bot", "chatgpt", "bing", "bard"})

Turn = tuple[str, str]
"""Role and text."""

_ROLE, _TEXT = ("role", "from"), ("content", "value")
_CALLS = ("tool_calls", "function_call")
"""What a turn has that calls a tool, and that may have no text."""


@dataclass(frozen=True)
class Field:
    """A column of a shape.

    Args:
        names: Its names; the first that rows have is read.
        role: Role of a value that is no list of turns.
        keys: For a list of turns the keys of role and text; ``None``: a string will do.
        optional: Whether rows of this shape may be without it.
    """

    names: tuple[str, ...]
    role: str = "assistant"
    keys: tuple[str, str] | None = None
    optional: bool = False

    def find(self, rows: Sequence[Row]) -> str | None:
        """Return the first of its names under which a row has a fitting value."""
        return next((n for n in self.names if any(self._fits(row.get(n)) for row in rows)), None)

    def _fits(self, value: Any) -> bool:
        if value is None or self.keys is None:
            return value is not None
        turns = _parsed(value, self)
        if isinstance(turns, Mapping):  # a struct of lists
            return all(isinstance(turns.get(key), list) for key in self.keys)
        first = turns[0] if isinstance(turns, list) and turns else None
        return isinstance(first, Mapping) and all(first.get(key) is not None for key in self.keys)


@dataclass(frozen=True)
class Shape:
    """A kind of row with turns.

    Args:
        name: As ``--format`` takes it.
        title: In words.
        fields: The columns whose turns make the text, in order.
        also: A column by which the shape is known and which is not read.
    """

    name: str
    title: str
    fields: tuple[Field, ...]
    also: str | None = None

    @property
    def needs(self) -> str:
        """Return the columns that it needs, in words."""
        names = ["/".join(field.names) for field in self.fields if not field.optional]
        return ", ".join([*names, *([self.also] if self.also else [])])

    def find(self, rows: Sequence[Row], role: Role) -> Turns | None:
        """Return how to read rows of this shape, or ``None`` if these are of another."""
        found = [(field, field.find(rows)) for field in self.fields]
        if any(name is None and not field.optional for field, name in found):
            return None
        if self.also is not None and not any(row.get(self.also) is not None for row in rows):
            return None
        return Turns(self, tuple((name, field) for field, name in found if name is not None), role)


_CHATS = ("messages", "conversations", "conversation")

SHAPES = (
    Shape("messages", "chat messages", (Field(_CHATS, keys=("role", "content")),)),
    Shape("conversations", "ShareGPT conversations", (Field(_CHATS, keys=("from", "value")),)),
    Shape(
        "preference",
        "preference pairs",
        (Field(("prompt", "question"), "user", optional=True), Field(("chosen",))),
        also="rejected",
    ),
    Shape(
        "instruction",
        "instructions",
        (
            Field(("instruction",), "user"),
            Field(("input", "context"), "user", optional=True),
            Field(("output", "response")),
        ),
    ),
    Shape(
        "prompt",
        "prompts with completions",
        (Field(("prompt",), "user"), Field(("completion", "response"))),
    ),
    Shape(
        "question",
        "questions with answers",
        (Field(("question",), "user"), Field(("answer",))),
    ),
)
"""The shapes beside plain text, in the order in which they are looked for."""

FORMATS = ("text", *(shape.name for shape in SHAPES))


@dataclass(frozen=True)
class Turns:
    """The turns of rows of one shape.

    Args:
        shape: The shape.
        fields: Column and field, for each column that the file has.
        role: Whose turns make the text.
    """

    shape: Shape
    fields: tuple[tuple[str, Field], ...]
    role: Role

    @property
    def name(self) -> str:
        """Return the name of the shape."""
        return self.shape.name

    @property
    def columns(self) -> tuple[str, ...]:
        """Return the columns that are read."""
        return tuple(name for name, _ in self.fields)

    @property
    def required(self) -> tuple[str, ...]:
        """Return the columns that are not optional."""
        return tuple(name for name, field in self.fields if not field.optional)

    @property
    def description(self) -> str:
        """Return the shape and its columns in words."""
        role = "" if self.role == "all" else f", turns of the {self.role}"
        return f"{self.shape.title}, {named(self.columns)}{role}"

    def text(self, row: Row, where: str) -> str:
        """Return the turns of the role, one a line; see `TextOf.text`."""
        turns: list[Turn] = []
        for name, field in self.fields:
            found = list(_turns(row.get(name), field, f"{where}: {name!r}"))
            # An answer that holds the conversation so far would repeat the prompt.
            if field.role == "assistant" and any(role in USERS for role, _ in found):
                turns = []
            turns += found
        if self.role != "all":
            kept = USERS if self.role == "user" else ASSISTANTS
            turns = [turn for turn in turns if turn[0] in kept]
        return "\n".join(text for _, text in turns if text)


def _turns(value: Any, field: Field, where: str) -> Iterator[Turn]:
    """Yield the turns of a value: a text, a number, a list of turns or of texts."""
    value = _parsed(value, field)
    if value is None:
        return
    if isinstance(value, str | int | float) and field.keys is None:
        yield field.role, str(value)
        return
    turns = value if isinstance(value, list) else _each(value, where)
    speak = _speak(turns, field)
    for turn in turns:
        if isinstance(turn, str) and field.keys is None:
            yield field.role, turn
        elif isinstance(turn, Mapping) and _has_role(turn) and speak:
            yield str(_either(turn, _ROLE) or "").lower(), _content(_either(turn, _TEXT))
        elif turn is not None:
            kind = type(turn).__name__ if isinstance(value, list) else type(value).__name__
            raise ValueError(
                f"{where} holds {kind} where a turn is expected; write a list of "
                '{"role": …, "content": …}, in CSV as JSON with double quotes'
            )


def _each(value: Any, where: str) -> list[Any]:
    """Return the turns of a struct of lists, or the value as the only one."""
    if not isinstance(value, Mapping):
        return [value]
    roles, texts = _either(value, _ROLE), _either(value, _TEXT)
    if not (isinstance(roles, list) and isinstance(texts, list)):
        return [value]  # a turn whose text is a list of parts, or that calls tools
    if len(roles) != len(texts):
        raise ValueError(
            f"{where} holds {len(roles)} roles and {len(texts)} texts; write one of each for a turn"
        )
    return [{"role": role, "content": text} for role, text in zip(roles, texts, strict=True)]


def _either(turn: Mapping[str, Any], names: Sequence[str]) -> Any:
    return next((turn[name] for name in names if turn.get(name) is not None), None)


def _has_role(value: Mapping[str, Any]) -> bool:
    return any(name in value for name in _ROLE)


def _speak(turns: Sequence[Any], field: Field) -> bool:
    """Return whether objects with a role are turns: one has a text, or the column is of turns.

    Other objects may have such a key by chance, such as ``{"from": "Paris", "to": "Rome"}``.
    """
    said = {name for turn in turns if isinstance(turn, Mapping) for name in turn}
    return field.keys is not None or not said.isdisjoint((*_TEXT, *_CALLS))


def _content(content: Any) -> str:
    """Return the text of a turn: a string, or the texts among its parts."""
    if isinstance(content, list):
        return "\n".join(filter(None, map(_content, content)))
    if isinstance(content, Mapping):  # a part; an image has no text
        return _content(content.get("text"))
    return "" if content is None else str(content)


def _parsed(value: Any, field: Field) -> Any:
    """Return the list or object that a text holds as JSON, or the value itself."""
    if isinstance(value, str) and value.lstrip()[:1] in ("[", "{"):
        try:
            parsed = json.loads(value)
        except (ValueError, RecursionError):
            return value
        turns = parsed if isinstance(parsed, list) else [parsed]
        # A plain text may be JSON by chance, such as "[1]".
        roles = all(isinstance(turn, Mapping) and _has_role(turn) for turn in turns)
        if turns and roles and _speak(turns, field):
            return parsed
    return value
