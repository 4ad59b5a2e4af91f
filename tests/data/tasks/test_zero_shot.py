import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gotd.config.schemas import TaskLimits
from gotd.data.folder import Folder
from gotd.data.microworld.grammar import ATTRIBUTES
from gotd.data.microworld.world import Microworld
from gotd.data.tasks.zero_shot import ZeroShotTask, evaluated, selected_for

FIELDS = {
    "label_kind": "class",
    "metrics": ("accuracy",),
    "headline": "accuracy",
}


def make(**fields):
    basis = {
        "name": "quiz",
        "text_columns": ("question",),
        "classes": 3,
        "reported_splits": {"test": "test"},
        "train_split": "test",
    }
    return ZeroShotTask(**{**FIELDS, **basis, **fields})


@pytest.fixture
def folder(tmp_path):
    write(tmp_path, [["a", "b", "c"]] * 30, [i % 3 for i in range(30)])
    return Folder(str(tmp_path))


def write(root, choices, labels):
    place = root / "zeroshot" / "quiz"
    place.mkdir(parents=True, exist_ok=True)
    questions = [f"which, {i}?" for i in range(len(labels))]
    rows = {"question": questions, "choices": choices, "label": labels}
    pq.write_table(pa.table(rows), place / "test.parquet")


def test_rows_that_are_answered_are_never_selected_for(folder):
    task = make(evaluated_rows=10)
    rows, texts = evaluated(folder, task, "test"), selected_for(folder, task, None)
    assert rows.num_rows == 10
    assert texts.num_rows == 20
    assert not set(rows["id"].to_pylist()) & set(texts["id"].to_pylist())
    assert "label" not in texts.column_names
    assert rows["choices"][0].as_py() == ["a", "b", "c"]
    fewer = selected_for(folder, task, 5)["id"].to_pylist()
    assert set(fewer) < set(selected_for(folder, task, 9)["id"].to_pylist())
    with pytest.raises(ValueError, match="none is left to select for"):
        selected_for(folder, make(), None)


def test_questions_on_one_passage_are_on_one_side(tmp_path):
    place = tmp_path / "zeroshot" / "quiz"
    place.mkdir(parents=True)
    passages = [f"passage {i // 4}" for i in range(40)]
    rows = {"question": [f"q {i}?" for i in range(40)], "passage": passages, "label": [0] * 40}
    pq.write_table(pa.table(rows), place / "test.parquet")
    task = make(
        text_columns=("question", "passage"), choices=("a", "b"), classes=2, evaluated_rows=10
    )
    folder = Folder(str(tmp_path))
    rows, texts = evaluated(folder, task, "test"), selected_for(folder, task, None)
    assert rows.num_rows == 10
    answered = set(rows["text_pair"].to_pylist())
    # Ten rows need three passages of four; the two rows that are left over are on no side.
    assert len(answered) == 3
    assert texts.num_rows == 40 - 12
    assert not answered & set(texts["text_pair"].to_pylist())


@pytest.mark.parametrize("train_split", ["test", "train"])
def test_the_tables_of_a_task_share_no_row(folder, tmp_path, train_split):
    """The rows to select for are never those to answer, from one split or from two."""
    place = tmp_path / "zeroshot" / "quiz"
    (place / "train.parquet").write_bytes((place / "test.parquet").read_bytes())
    task = make(evaluated_rows=10, train_split=train_split)
    tables = task.tables(folder, TaskLimits(), "clean", 1)
    assert set(tables) == {"train", "reported-test"}
    selected, answered = (set(tables[name]["id"].to_pylist()) for name in tables)
    assert answered == set(evaluated(folder, task, "test")["id"].to_pylist())
    assert len(selected) == (20 if train_split == "test" else 30)
    assert not selected & answered


@pytest.mark.parametrize(
    ("choices", "labels", "message"),
    [
        ([["a", "b"], ["a", "b"]], [0, 2], "row 2: the label 2 is none of the choices"),
        ([["a", ""], ["a", "b"]], [0, 1], "row 1: the label 0 is none of the choices, or one is"),
        ([None, ["a", "b"]], [0, 1], "row 1"),
        (["a", "b"], [0, 1], "not lists of strings"),
    ],
)
def test_broken_choices_are_named(tmp_path, choices, labels, message):
    write(tmp_path, choices, labels)
    with pytest.raises(ValueError, match=message):
        evaluated(Folder(str(tmp_path)), make(), "test")


def test_tasks_that_cannot_be_asked_are_refused(folder):
    with pytest.raises(ValueError, match="2 choices for 3 classes"):
        make(choices=("yes", "no"))
    with pytest.raises(ValueError, match="a choice is a class"):
        make(label_kind="regression", classes=1, label_range=(0.0, 1.0))
    with pytest.raises(ValueError, match="evaluated_rows"):
        make(evaluated_rows=0)


def test_topic_is_told_by_documents_alone(entities):
    """The text names an entity and no attribute; documents put the entity's verb beside it."""
    world = Microworld(seed=1, pretraining_documents=300, candidate_documents=2000)
    rows = world.split("topic", "validation")
    facts = {row["word"]: row for row in entities(world).to_pylist()}
    labels = rows["label"].to_pylist()
    assert {labels.count(k) for k in range(4)} == {250}
    for text, label, domain in zip(
        rows["text"].to_pylist(), labels, rows["domain"].to_pylist(), strict=True
    ):
        words = text.split()
        assert words[1] == words[-1]
        fact = facts[words[-1]]
        assert (fact["category"], fact["domain"], fact["evaluation"]) == (label, domain, True)
        assert not set(words) & {verbs[0] for verbs in ATTRIBUTES["category"]}


def test_new_task_leaves_the_world_as_it_was():
    world = Microworld(seed=3, candidate_documents=500, rare_share=0.1)
    assert world.identity() == {
        "name": "microworld",
        "version": 1,
        "seed": 3,
        "pretraining_documents": 10_000,
        "candidate_documents": 500,
        "labels": 500,
        "evaluation_rows": 1_000,
        "rare_share": 0.1,
        "rare_domains": 1,
        "common_domains": 4,
    }
