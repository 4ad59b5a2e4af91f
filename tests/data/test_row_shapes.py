"""Which shape rows have, and the text that each gives."""

from __future__ import annotations

import json
import logging

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gotd.data.columns import Columns, both_columns
from gotd.data.inputs import named_parts, table_parts
from gotd.data.row_shapes import FORMATS, SHAPES

CHAT = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "What divides?"},
    {"role": "assistant", "content": [{"type": "text", "text": "Cells."}, {"type": "image_url"}]},
]
SHARED = [{"from": "human", "value": "What divides?"}, {"from": "gpt", "value": "Cells."}]
BOTH = "What divides?\nCells."
ROWS = {
    "messages": ({"messages": CHAT}, f"Be brief.\n{BOTH}"),
    "messages in conversation": ({"conversation": CHAT[1:]}, BOTH),
    "conversations": ({"conversations": SHARED}, BOTH),
    "instruction": ({"instruction": "What divides?", "input": "", "output": "Cells."}, BOTH),
    "instruction with context": (
        {"instruction": "What divides?", "context": "Life.", "response": "Cells."},
        "What divides?\nLife.\nCells.",
    ),
    "prompt": ({"prompt": "What divides?", "completion": "Cells."}, BOTH),
    "prompt and response": ({"prompt": "What divides?", "response": "Cells."}, BOTH),
    "prompt in turns": ({"prompt": CHAT[1:2], "completion": CHAT[2:]}, BOTH),
    "question": ({"question": "What divides?", "answer": "Cells."}, BOTH),
    "question with a number": ({"question": "What divides?", "answer": 7}, "What divides?\n7"),
    "preference": ({"prompt": "What divides?", "chosen": "Cells.", "rejected": "No."}, BOTH),
    "preference of chats": ({"prompt": "x", "chosen": CHAT[1:], "rejected": CHAT[1:2]}, BOTH),
    "preference of answers": (
        {"prompt": CHAT[1:2], "chosen": CHAT[2:], "rejected": CHAT[:1]},
        BOTH,
    ),
    "preference without prompt": ({"chosen": BOTH, "rejected": "No."}, BOTH),
}


PLAIN = Columns()


def read(path, columns=PLAIN):
    (part,) = named_parts([str(path)], columns, path.parent / "store" / "hub.json")
    return pa.concat_tables(part.pieces())["text"].to_pylist()


def write(path, rows):
    path.write_text("\n".join(map(json.dumps, rows)), "utf-8")
    return path


@pytest.mark.parametrize("kind", ROWS)
def test_a_shape_is_found_and_gives_the_text_of_all_turns(tmp_path, caplog, kind):
    row, text = ROWS[kind]
    path = write(tmp_path / "rows.jsonl", [row, row])
    with caplog.at_level(logging.INFO):
        assert read(path) == [text, text]
    shape = next(shape for shape in SHAPES if shape.name == kind.split()[0])
    (line,) = caplog.messages
    assert line.startswith(f"{path}: {shape.title}, column")


def in_parts(value):
    """Return a row whose messages all have parts: Arrow has one type for a field."""
    if isinstance(value, list):
        return [in_parts(item) for item in value]
    if not isinstance(value, dict):
        return value
    if isinstance(value.get("content"), str):
        return {**value, "content": [{"type": "text", "text": value["content"]}]}
    return {name: in_parts(item) for name, item in value.items()}


@pytest.mark.parametrize("kind", ROWS)
def test_nested_columns_of_parquet_and_memory_are_the_same_rows(tmp_path, kind):
    row, text = ROWS[kind]
    table = pa.Table.from_pylist([in_parts(row), in_parts(row)])
    pq.write_table(table, tmp_path / "rows.parquet")
    assert read(tmp_path / "rows.parquet") == [text, text]
    (part,) = table_parts(table, "mine", Columns())
    assert pa.concat_tables(part.pieces())["text"].to_pylist() == [text, text]


def test_a_struct_of_lists_is_a_list_of_turns(tmp_path):
    turns = {"from": ["human", "gpt"], "value": ["What divides?", "Cells."]}
    pq.write_table(pa.Table.from_pylist([{"conversations": turns}]), tmp_path / "rows.parquet")
    assert read(tmp_path / "rows.parquet") == [BOTH]


SAID = {"role": "assistant", "content": "Cells."}
CALL = {"role": "assistant", "tool_calls": [{"name": "look"}]}


@pytest.mark.parametrize("as_text", [False, True])
@pytest.mark.parametrize(
    "answer",
    [
        SAID | {"tool_calls": []},
        SAID | {"tool_calls": [{"name": "look"}, {"name": "see"}]},
        {"from": "gpt", "value": "Cells.", "weight": [1.0, 0.0, 2.0]},
        {"role": "assistant", "content": [{"type": "text", "text": "Cells."}, {"type": "image"}]},
        {"role": ["assistant"], "content": ["Cells."], "tool_calls": [], "ids": [1, 2]},
        [CALL, SAID],
    ],
)
def test_a_turn_may_hold_lists_and_is_no_struct_of_lists(tmp_path, answer, as_text):
    given = json.dumps(answer) if as_text else answer
    rows = [{"prompt": "What divides?", "completion": given}]
    assert read(write(tmp_path / "rows.jsonl", rows)) == [BOTH]
    assert read(tmp_path / "rows.jsonl", Columns(role="assistant")) == ["Cells."]


def test_a_turn_without_text_is_blank_beside_others(tmp_path):
    rows = [{"messages": [*CHAT[1:], CALL, {"role": "user"}]}, {"messages": json.dumps([CALL])}]
    assert read(write(tmp_path / "rows.jsonl", rows)) == [BOTH, ""]


def test_a_struct_of_lists_has_a_text_for_each_role(tmp_path):
    turns = {"role": ["user", "assistant"], "content": ["What divides?"]}
    path = write(tmp_path / "rows.jsonl", [{"messages": turns}])
    with pytest.raises(ValueError, match=r"line 1: 'messages' holds 2 roles and 1 texts; write"):
        read(path)


@pytest.mark.parametrize("kind", [kind for kind in ROWS if "number" not in kind])
def test_a_role_selects_its_turns(tmp_path, kind):
    row, text = ROWS[kind]
    path = write(tmp_path / "rows.jsonl", [row])
    asked = [line for line in text.split("\n") if line in ("What divides?", "Life.")]
    if kind == "preference without prompt":
        return
    assert read(path, Columns(role="user")) == ["\n".join(asked)]
    assert read(path, Columns(role="assistant")) == ["Cells."]


def test_plain_text_has_no_role_and_comes_before_turns(tmp_path):
    path = write(tmp_path / "rows.jsonl", [{"text": "plain", "messages": CHAT}])
    assert read(path, Columns(role="assistant")) == ["plain"]
    assert read(path, Columns(format="messages", role="assistant")) == ["Cells."]


def test_a_format_is_found_or_refused(tmp_path):
    path = write(tmp_path / "rows.jsonl", [{"prompt": "p", "response": "r", "question": "q"}])
    assert read(path) == ["p\nr"]
    with pytest.raises(ValueError, match=r"rows.jsonl has no rows of the format question, which"):
        read(path, Columns(format="question"))
    with pytest.raises(ValueError, match=r"has no column 'text'; it has prompt, .*--format"):
        read(path, Columns(format="text"))
    with pytest.raises(ValueError, match=f"must be one of {', '.join(FORMATS)}, not 'chat'"):
        Columns(format="chat")


def test_a_template_makes_the_text_from_any_columns(tmp_path):
    rows = [
        {"q": "Why?", "a": "So.", "n": 1},
        {"q": "{a}", "n": 2},
        {"other": "x"},
        {"q": "", "a": [{"b": "é"}]},
    ]
    path = write(tmp_path / "rows.jsonl", rows)
    found = read(path, Columns(template="{{{q}}}: {a}"))
    assert found == ["{Why?}: So.", "{{a}}: ", "", '{}: [{"b": "é"}]']


@pytest.mark.parametrize(
    "template",
    ["no column", "{q", "{}", "{0.__class__}", "{q.x}", "{q[0]}", "{q!r}", "{q:>9}", "}"],
)
def test_a_template_is_validated_before_any_row_is_read(template):
    with pytest.raises(ValueError, match="--template .* cannot be read"):
        Columns(template=template)


def test_a_template_s_columns_must_be_there(tmp_path):
    path = write(tmp_path / "rows.jsonl", [{"q": "a"}])
    with pytest.raises(ValueError, match=r"has no column 'z'; it has q: correct the --template"):
        read(path, Columns(template="{q} {z}"))


@pytest.mark.parametrize(
    "fields",
    [
        {"format": "messages", "template": "{a}"},
        {"text": ("a",), "template": "{a}"},
        {"text": ("a",), "format": "messages"},
    ],
)
def test_two_ways_to_make_the_text_are_refused(fields):
    with pytest.raises(ValueError, match="contradict each other; give one of them"):
        Columns(**fields)


def test_the_target_has_settings_of_its_own():
    assert both_columns("body", role="user") == (
        Columns(("body",), role="user"),
        Columns(("body",), role="user"),
    )
    assert both_columns("body", "text", id_column="key") == (
        Columns(("body",), "key"),
        Columns(("text",)),
    )
    assert both_columns(format="messages", target_template="{a}") == (
        Columns(format="messages"),
        Columns(template="{a}"),
    )


def test_rows_without_a_column_are_counted_and_blank(tmp_path, caplog):
    rows = [{"messages": CHAT[1:]}, {"messages": None}, {"other": 1}, {"messages": []}]
    assert read(write(tmp_path / "rows.jsonl", rows)) == [BOTH, "", "", ""]
    assert "rows.jsonl: 2 of 4 rows lack 'messages'" in caplog.text
    table = pa.table({"text": ["a", None, "c"], "title": ["t", "u", None]})
    pq.write_table(table, tmp_path / "rows.parquet")
    assert read(tmp_path / "rows.parquet", Columns(("title", "text"))) == ["t a", "u", "c"]
    assert "rows.parquet: 1 of 3 rows lack 'title'" in caplog.text
    assert read(tmp_path / "rows.parquet") == ["a", "", "c"]


def test_rows_of_the_shape_may_begin_late(tmp_path):
    rows = [{"other": n} for n in range(250)] + [{"messages": CHAT[1:]}]
    assert read(write(tmp_path / "rows.jsonl", rows))[-1] == BOTH


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ({"messages": 5}, r"line 2: 'messages' holds int where a turn is expected"),
        ({"messages": ["a"]}, r"line 2: 'messages' holds str where a turn is expected"),
        ({"messages": "[{'role': 'user'}]"}, r"line 2: 'messages' holds str .*JSON with double"),
        ({"messages": [{"role": "user", "content": "\ud800"}]}, r"line 2: .*half a character"),
    ],
)
def test_what_is_no_turn_is_named_with_its_row(tmp_path, row, says):
    path = write(tmp_path / "rows.jsonl", [{"messages": CHAT}, row])
    with pytest.raises(ValueError, match=rf"rows.jsonl {says}"):
        read(path)


def test_a_plain_text_that_looks_like_json_stays_a_text(tmp_path):
    rows = [{"question": "[1]", "answer": '{"a": 1}'}, {"question": "[", "answer": "[2]"}]
    path = write(tmp_path / "rows.jsonl", rows)
    assert read(path) == ['[1]\n{"a": 1}', "[\n[2]"]


@pytest.mark.parametrize("answer", [{"from": "Paris", "to": "Rome"}, {"role": "admin"}])
def test_an_answer_with_the_key_of_a_role_and_no_text_does_not_vanish(tmp_path, answer):
    for number, told in enumerate((json.dumps(answer), json.dumps([answer, answer]))):
        path = write(tmp_path / f"{number}.jsonl", [{"prompt": "Which?", "completion": told}])
        assert read(path) == [f"Which?\n{told}"]
    path = write(tmp_path / "rows.jsonl", [{"prompt": "Which?", "completion": answer}])
    with pytest.raises(ValueError, match="line 1: 'completion' holds dict where a turn is"):
        read(path)


def test_the_key_of_plain_text_is_the_old_one_and_any_other_setting_has_its_own(tmp_path):
    from gotd.config.schemas import Chunking
    from gotd.pipeline.steps.pools import pool

    path = write(tmp_path / "rows.jsonl", [{"text": "a", "messages": CHAT}])

    def step(**fields):
        columns = Columns(**fields)
        (part,) = named_parts([str(path)], columns, tmp_path / "hub.json")
        return pool("candidates", [part], Chunking("whole"), columns)

    plain = step()
    assert plain.parameters["columns"] == {"text": ["text"], "id": None, "domain": None}
    assert set(plain.parameters["parts"][0]) == {"file", "sha256", "reader"}
    others = [{"format": "messages"}, {"role": "user"}, {"template": "{text}"}]
    assert len({plain.key, *(step(**fields).key for fields in others)}) == 4
    assert step(format="messages").parameters["parts"][0]["shape"] == "messages"
