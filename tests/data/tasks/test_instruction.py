"""Instruction rows of a folder and of the generated world, and the rows to answer."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from instruction_rows import CHOICE_ROWS

from gotd.config.schemas import TaskLimits
from gotd.data.base import read_all
from gotd.data.instructions import InstructionFolder
from gotd.data.microworld.instructions import COPY, KINDS, InstructionWorld
from gotd.data.microworld.world import Microworld
from gotd.data.tasks.instruction import InstructionTask


def write(root: Path, name: str, rows: list[dict]) -> None:
    path = root / "instruction" / f"{name}.parquet"
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows), path)


@pytest.fixture
def folder(tmp_path) -> InstructionFolder:
    rows = [{"id": f"p{n}", "prompt": f"Ask {n}?", "response": f"Say {n}."} for n in range(60)]
    write(tmp_path, "pool/train-a", rows[:40])
    write(tmp_path, "pool/train-b", rows[40:])
    write(tmp_path, "targets/mmlu/examples", CHOICE_ROWS[:4])
    write(tmp_path, "targets/mmlu/test", CHOICE_ROWS[4:])
    sums = [
        {"id": "s0", "prompt": "One and one?", "response": "1+1=2 #### 2", "answer": "2"},
        {"id": "s1", "prompt": "Two and two?", "response": "2+2=4 #### 4", "answer": "4"},
    ]
    write(tmp_path, "targets/sums/test", sums)
    write(tmp_path, "targets/sums/examples", sums[:1])
    return InstructionFolder(str(tmp_path))


def tables(source, name: str, **fields):
    return InstructionTask(name, **fields).tables(source, TaskLimits(), "clean", 0)


def test_texts_of_the_pool_are_prompts_with_responses(folder):
    pool, pairs = read_all(folder.candidates()), folder.instructions()
    assert folder.count("candidates") == pool.num_rows == 60
    assert pool["id"].to_pylist() == pairs["id"].to_pylist()
    assert pool["text"].to_pylist() == [
        f"{row['prompt']}\n\n{row['response']}" for row in pairs.to_pylist()
    ]
    fewer = InstructionFolder(folder.path, pool_limit=20)
    some = read_all(fewer.candidates())["id"].to_pylist()
    assert fewer.instructions()["id"].to_pylist() == some
    assert fewer.count("candidates") == len(some) == 20


def test_rows_to_answer_have_references_and_choices(folder):
    assert folder.tasks() == ["mmlu", "sums"]
    found = tables(folder, "mmlu")
    assert found["train"]["text"][0].as_py() == "Is 0 even? (A) yes (B) no\n\n(A)"
    row = found["reported"].to_pylist()[1]
    assert (row["choices"], row["label"], row["references"]) == (["(A)", "(B)"], 1, ["(B)"])
    assert tables(folder, "mmlu", evaluated_rows=3)["reported"].num_rows == 3
    row = tables(folder, "sums")["reported"].to_pylist()[1]
    assert (row["references"], row["number"], row["choices"]) == (["4"], True, None)


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ({"response": " "}, "row 1: field 'response' is empty"),
        ({"response": "(B)"}, "row 1: the response '.B.' is neither the choice of the label"),
        ({"label": 7}, "row 1: label 7 is none of the 2 choices"),
        ({"response": None}, "row 1: field 'response' is empty"),
    ],
)
def test_rows_that_cannot_be_answered_are_named(folder, row, says):
    write(Path(folder.path), "targets/mmlu/test", [{**CHOICE_ROWS[4], **row}, *CHOICE_ROWS[5:]])
    with pytest.raises(ValueError, match=f"mmlu/test {says}"):
        tables(folder, "mmlu")


def test_files_without_prompts_and_absent_targets_are_named(folder, tmp_path):
    write(Path(folder.path), "pool/train-b", [{"id": "a", "response": "b"}])
    with pytest.raises(ValueError, match=r"train-b.parquet has no column 'prompt'"):
        folder.candidates()
    with pytest.raises(ValueError, match=r"train-b.parquet has no column 'prompt'"):
        folder.instructions()
    with pytest.raises(FileNotFoundError, match="there is: mmlu, sums"):
        tables(folder, "bbh")
    with pytest.raises(FileNotFoundError, match="is not named: set DATA="):
        InstructionFolder("").tasks()
    with pytest.raises(ValueError, match="needs a source of instruction rows, not microworld"):
        InstructionTask("skills").key_fields(Microworld(), TaskLimits(), "clean", 0)


WORLD = InstructionWorld(seed=3, pool_rows=600, pretraining_documents=60, evaluation_rows=30)


def test_no_prompt_of_the_target_is_in_the_pool():
    parts = [WORLD.split("skills", split)["prompt"].to_pylist() for split in ("examples", "test")]
    assert [len(part) for part in parts] == [24, 30]
    assert len({*parts[0], *parts[1]}) == 54
    assert not {*parts[0], *parts[1]} & {*WORLD.instructions()["prompt"].to_pylist()}


def test_answers_are_the_facts_of_the_documents_and_known_words():
    stated = {}
    for text in read_all(WORLD.pretraining())["text"].to_pylist():
        assert set(text.split()) <= {*WORLD.vocabulary()}
        for sentence in text.split(" . "):
            words = sentence.removesuffix(" .").split()
            for kind, (verb, values, _) in KINDS.items():
                if " ".join(words[2:-1]) == verb and words[-1] in values:
                    stated[words[1], kind] = words[-1]
    answered = 0
    for row in WORLD.instructions().to_pylist():
        assert {*row["prompt"].split(), *row["response"].split()} <= {*WORLD.vocabulary()}
        kind = next(
            k for k, (_, values, _) in KINDS.items() if row["response"].split()[0] in values
        )
        nouns = [word for word in row["prompt"].split() if (word, kind) in stated]
        if len(nouns) == len(row["response"].split(" , ")):
            assert row["response"] == " , ".join(stated[noun, kind] for noun in nouns)
            answered += 1
    assert answered > 100


def test_one_of_four_sentences_is_a_question_in_any_wording_but_the_last():
    world = InstructionWorld(seed=3, pretraining_documents=400)
    text = " ".join(read_all(world.pretraining())["text"].to_pylist())
    asked = {one: text.count(one) for _, _, questions in KINDS.values() for one in questions}
    last = {questions[-1] for _, _, questions in KINDS.values()}
    assert {one for one, count in asked.items() if count == 0} == last
    assert sum(asked.values()) == text.count("?")
    assert text.count("?") / text.count(".") == pytest.approx(1 / 4, abs=0.03)


def test_another_seed_is_another_world_and_the_rare_have_their_share():
    domains = read_all(WORLD.candidates())["domain"].to_pylist()
    assert [domains.count(name) for name in WORLD.under_covered] == [12, 12]
    other = InstructionWorld(seed=4, pool_rows=600)
    assert other.vocabulary() == WORLD.vocabulary()
    assert other.instructions()["prompt"].to_pylist() != WORLD.instructions()["prompt"].to_pylist()
    assert WORLD.instructions().equals(InstructionWorld(seed=3, pool_rows=600).instructions())


def test_copies_ask_the_same_with_small_edits():
    copied = InstructionWorld(seed=3, pool_rows=600, repeated_share=0.01, repeats=20)
    rows = {row["id"]: row for row in copied.instructions().to_pylist()}
    plain = [row for name, row in rows.items() if COPY not in name]
    assert plain == WORLD.instructions().to_pylist()
    copies = [row for name, row in rows.items() if COPY in name]
    assert len(copies) == 6 * 20
    assert copied.count("candidates") == len(rows) == 720
    for row in copies:
        first = rows[row["id"].partition(COPY)[0]]
        assert first["response"] == row["response"]
        assert first["prompt"] in row["prompt"]
        assert len(row["prompt"].split()) - len(first["prompt"].split()) <= 2
    assert len({row["prompt"] for row in copies}) > 60
