"""Rows that a reader must not lose, invent or misread (K2, K6)."""

from __future__ import annotations

import json
import unicodedata
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import regex as re

from gotd.config.schemas import Chunking
from gotd.data.columns import Columns
from gotd.data.cutting import INVISIBLE as ALL_INVISIBLE
from gotd.data.inputs import named_parts, table_parts
from gotd.data.instructions import read_instructions
from gotd.data.left_out.overlap import _hashes
from gotd.data.own_files import OwnFiles
from gotd.data.pool import open_pool, pool_facts, write_pool
from gotd.data.table_files import _well_quoted
from gotd.evaluation.zero_shot import Prompt
from gotd.pipeline.replay import parse_replay, replay_columns
from gotd.pipeline.steps.pools import pool
from gotd.selection_report.measures import plain_excerpt
from gotd.selectors.hashed_ngrams import FastNgrams
from gotd.selectors.least_toxic import LeastToxic
from gotd.storage.files import write_json


def read(path, columns: Columns | None = None):
    (part,) = named_parts([str(path)], columns or Columns(), path.parent / "record")
    return pa.concat_tables([table.cast(part_schema) for table in part.pieces()])


part_schema = pa.schema([("id", pa.string()), ("text", pa.large_string()), ("domain", pa.string())])

INVISIBLE = ["\u200b", "\ufeff", "\u2060", "\u00ad", "\u115f", "\u2800", " \u200d\u3164 ", "\ufe0f"]


def test_texts_of_invisible_characters_are_blank(tmp_path):
    """A5: they were ranked first."""
    parts = table_parts([*INVISIBLE, "a\u200b", "🙂", "ก็", "-"], "pool", Columns())
    write_pool(parts, tmp_path, Chunking("whole"))
    facts = pool_facts(tmp_path)
    assert (facts["blank_rows"], sum(facts["rows"])) == (len(INVISIBLE), 4)


def test_all_that_unicode_calls_ignorable_is_invisible():
    ignorable = re.compile(r"\p{Default_Ignorable_Code_Point}", re.VERSION1)
    every = set(ignorable.findall("".join(map(chr, (*range(0xD800), *range(0xE000, 0x110000))))))
    assert {"\U0001bca0", "\U0001d17a", "\u200b"} < every
    assert every <= set(ALL_INVISIBLE)


def test_labelled_rows_and_instructions_of_invisible_characters_are_blank(tmp_path):
    """Siblings of A5: rows of gotd compare, and prompts."""
    rows = [{"text": text, "label": "a"} for text in (*INVISIBLE, "one", "two")]
    path = tmp_path / "train.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    given = {"train": (str(path),), "test": (str(path),), "candidates": (str(path),)}
    source = OwnFiles(given, "task", str(tmp_path / "store"))
    assert source.split("task", "train")["text"].to_pylist() == ["one", "two"]
    prompts = pa.table({"id": ["a", "b"], "prompt": ["hi", INVISIBLE[0]], "response": ["c", "d"]})
    with pytest.raises(ValueError, match="row 2: field 'prompt' is empty"):
        read_instructions(prompts, "rows")


def test_a_held_out_row_with_the_text_of_a_target_row_is_not_measured(tmp_path):
    path = tmp_path / "mine.jsonl"
    texts = [f"text {n % 40}" for n in range(400)]  # each ten times, so on both sides
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in [*texts, "one", "two"]))
    given = {"target": (str(path),), "candidates": (str(path),)}
    source = OwnFiles(given, "task", str(tmp_path / "store"), held_out_share=0.5)
    target, held_out = (
        source.split("task", name)["text"].to_pylist() for name in ("target", "held_out")
    )
    assert len(set(target)) >= 40
    assert not {*target} & {*held_out}


@pytest.mark.parametrize("text", ["le café était fermé", "각 나라", "ở đây"])
def test_dsir_reads_both_normal_forms_alike(text):
    """A9: the same sentence counted as another one."""
    forms = pa.array([unicodedata.normalize(form, text) for form in ("NFC", "NFD")])
    counts = [FastNgrams(2, 1000).count(forms.slice(row, 1)) for row in (0, 1)]
    assert (counts[0] == counts[1]).all()


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("the _ is red", ("the ", " is red")),
        ("fill it with ___ and stir", ("fill it with ", " and stir")),
        ("in my_name.txt the _ is red", ("in my_name.txt the ", " is red")),
        ("it is the dog_s, not _'s", ("it is the dog_s, not ", "'s")),
    ],
)
def test_a_gap_question_is_cut_at_its_gap(text, parts):
    """A11: a name with an underscore was cut, and a long gap was scored."""
    prompt = Prompt("{before}{choice}", " {after}")
    (filled,) = prompt.fill(text, None, ["X"])
    assert filled == (f"{parts[0]}X", f" {parts[1].strip()}")


@pytest.mark.parametrize("text", ["the red one is blue", "a _ and a _", "only my_name"])
def test_a_question_without_one_gap_is_refused(text):
    with pytest.raises(ValueError, match="must have one gap"):
        Prompt("{before}{choice}", " {after}").fill(text, None, ["X"])
    assert Prompt("{text} {choice}").fill(text, None, ["X"])


@pytest.mark.parametrize("suffix", ["csv", "tsv"])
def test_a_quote_that_is_never_closed_is_refused(tmp_path, suffix):
    """A15: 990 of 1,000 rows were lost."""
    mark = "," if suffix == "csv" else "\t"
    path = tmp_path / f"q.{suffix}"
    rows = [f"{i}{mark}the dog {i}" for i in range(200)]
    path.write_text("\n".join([f"id{mark}text", *rows[:10], f'10{mark}"unclosed', *rows[11:], ""]))
    with pytest.raises(ValueError, match="row 11: a double quote is opened and never closed"):
        read(path)


@pytest.mark.parametrize("ending", ["\n", "\r\n"])
@pytest.mark.parametrize("suffix", ["csv", "tsv"])
def test_rows_between_two_quotes_are_not_lost(tmp_path, suffix, ending):
    """An even number of quotes hid the rows between them."""
    mark = "," if suffix == "csv" else "\t"
    path = tmp_path / f"q.{suffix}"
    rows = [f'"{i}"{mark}"the ""dog"", {i}"' for i in range(30)]
    rows[10:20] = [f"{i}{mark}plain" for i in range(10, 20)]
    rows[10], rows[19] = f'10{mark}"unclosed text', f'19{mark}"another'
    path.write_text(ending.join([f"id{mark}text", *rows, ""]), newline="")
    says = r"q\.[ct]sv row 11: more text follows the double quote .* in line 21 of the file"
    with pytest.raises(ValueError, match=says):
        read(path)


@pytest.mark.parametrize(
    ("written", "texts"),
    [
        ('"text",id\n"a",1\n"""b""",2\n"",3\n"c""",4', ["a", '"b"', "", 'c"']),
        ('\ufeff"text","id"\r\n"a,\r\nb",1\r\n5" pipe,2\r\n', ["a,\r\nb", '5" pipe']),
        ('text,id\n5" and 6",1\na"",2\n""","" b",3\n', ['5" and 6"', 'a""', '"," b']),
        ('text\n "a"\n"b"\n', [' "a"', "b"]),
    ],
)
def test_well_written_quotes_are_read(tmp_path, written, texts):
    path = tmp_path / "q.csv"
    path.write_text(written, "utf-8", newline="")
    assert read(path)["text"].to_pylist() == texts


def test_quotes_at_the_borders_of_blocks_are_looked_at_once(tmp_path):
    path = tmp_path / "q.csv"
    for fill in range(2**20 - 12, 2**20):
        path.write_text(f'text\n"{"a" * fill}"\n"b""c"\n')
        assert _well_quoted(path, b",")
        path.write_text(f'text\n"{"a" * fill}"b\n')
        assert not _well_quoted(path, b",")


def test_quotes_inside_texts_hide_nothing(tmp_path):
    path = tmp_path / "q.csv"
    path.write_text('id,text\n1,"two ""lines""\nof text"\n2,a 5" pipe\n')
    assert read(path)["text"].to_pylist() == ['two "lines"\nof text', 'a 5" pipe']


@pytest.mark.parametrize(("suffix", "mark"), [("csv", ","), ("tsv", "\t")])
def test_quotes_after_a_backslash_are_refused(tmp_path, suffix, mark):
    """C11: `"he said \\"hi\\""` of Spark lost a quote and kept the others."""
    path = tmp_path / f"q.{suffix}"
    path.write_text(f'id{mark}text\n1{mark}"two\nlines, ""so"""\n2{mark}"he said \\"hi\\" to me"\n')
    with pytest.raises(ValueError, match="row 2: a double quote .* with a backslash"):
        read(path)


@pytest.mark.parametrize(
    ("written", "text"),
    [
        ('Schr\\"odinger and G\\"odel', 'Schr\\"odinger and G\\"odel'),  # not quoted
        ('"Schr\\""odinger, his cat"', 'Schr\\"odinger, his cat'),
        ('"C:\\"', "C:\\"),
        ('"C:\\new, ""D:\\"""', 'C:\\new, "D:\\"'),
    ],
)
def test_a_backslash_of_a_text_stays(tmp_path, written, text):
    path = tmp_path / "q.csv"
    path.write_text(f"text,id\n{written},1\n{written},2\n")
    assert read(path)["text"].to_pylist() == [text, text]


def test_files_of_one_name_have_the_domain_of_their_folder(tmp_path):
    """C6: `lang=en/part-0` and `lang=de/part-0` were one domain, `part-0`."""
    for name in ("lang=en/part-0", "lang=de/part-0", "lang=de/other"):
        path = tmp_path / "pool" / f"{name}.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text('{"text": "a"}\n')
    parts = named_parts([str(tmp_path / "pool")], Columns(), tmp_path / "record")
    domains = {part.label: part.domain for part in parts}
    assert domains == {
        "lang=de/other.jsonl": None,
        "lang=de/part-0.jsonl": "lang=de",
        "lang=en/part-0.jsonl": "lang=en",
    }
    # Rows that were stored with the other domain have another key.
    assert ["domain" in part.identity() for part in parts] == [False, True, True]


def test_a_refused_input_leaves_nothing_in_the_store(here):
    """C2: the part of a folder stayed for ever, since a repaired file has another key."""
    bad = here.folder / "bad.jsonl"
    bad.write_text('{"text": "a"}\n{"text": 1}\n')
    assert here.select(pool=bad)[0] == 2
    assert not [*(here.folder / "store").rglob("*.part")]


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be", "utf-32-le"])
def test_text_of_another_encoding_is_refused(tmp_path, encoding):
    """A16: texts full of zero bytes were read."""
    (tmp_path / "u.txt").write_bytes("the dog barks\nthe cat\n".encode(encoding))
    with pytest.raises(ValueError, match=r"line 1 (holds a zero byte|is not UTF-8)"):
        read(tmp_path / "u.txt")


def test_a_mark_between_joined_files_is_no_text(tmp_path):
    """C1."""
    (tmp_path / "b.txt").write_bytes("a\n\ufeffb\n".encode())
    assert read(tmp_path / "b.txt")["text"].to_pylist() == ["a", "b"]


@pytest.mark.parametrize("ids", [[0, 1], [0, 0], [1.5, 2.5], [None, "x"]])
def test_rows_are_numbered_on_request_whatever_ids_they_have(here, ids):
    """B2: shards that number their rows from 0 could not be read at all."""
    files = []
    for shard in "ab":
        path = here.folder / f"{shard}.jsonl"
        rows = [{"id": i, "text": f"the dog {shard} {n} barks"} for n, i in enumerate(ids)]
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
        files.append(str(path))
    arguments = ("--candidates", *files)
    assert here.select(*arguments)[0] == 2
    assert here.select(*arguments, "--id-column", "none")[0] == 0
    assert {row["id"] for row in here.rows()} <= {"a#1", "a#2", "b#1", "b#2"}


def test_pieces_of_a_few_words_are_named_with_a_remedy(here):
    """A10: DSIR chooses the short last pieces, of which nothing was said on the terminal."""
    words = [f"w{n}" for n in range(200)]
    rows = [{"text": " ".join(words[n : n + 24] + ["the dog barks"])} for n in range(60)]
    pool = named_pool(here.folder / "long.jsonl", rows)
    cut = ("--method", "dsir", "--unit", "fixed", "--length-chars", "90", "--budget", "9")
    status, printed = here.select(*cut, pool=pool)
    assert status == 0
    assert "at an equal number of rows this is less text. Give --min-chars" in printed
    status, printed = here.select(*cut, "--min-chars", "80", pool=pool, out="long")
    assert status == 0
    assert "less text" not in printed
    assert min(len(row["text"]) for row in here.rows("long")) >= 80


def named_pool(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return path


NAMES = {
    "domains of numbers": [{"domain": 1}, {"domain": 2.5}],
    "domains that are lists": [{"domain": ["a"]}, {"domain": None}],
    "ids of fractions": [{"id": 0.5}, {"id": 1.5}],
    "ids that repeat": [{"id": "q"}, {"id": "q"}],
    "ids in some rows": [{}, {"id": "q"}],
    "no id at all": [{"id": None}, {"id": None}],
}


def named_rows(path, fields):
    texts = ("the dog barks", "the cat sleeps")
    rows = [{"text": text, **field} for text, field in zip(texts, fields, strict=True)]
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return str(path)


@pytest.mark.parametrize("fields", NAMES.values(), ids=NAMES)
@pytest.mark.parametrize("suffix", ["jsonl", "parquet"])
def test_names_of_target_rows_are_used_only_if_they_can_be(tmp_path, fields, suffix):
    """B3: they stopped the run, and a target needs none."""
    name = named_rows(tmp_path / f"t.{suffix}", fields)
    parts = named_parts([name], Columns(), tmp_path / "record")
    (tmp_path / "pool").mkdir()
    step = pool("target", parts, Chunking("whole"))
    step.build(tmp_path / "pool", {})
    (rows,) = open_pool(tmp_path / "pool")
    assert rows.texts.to_pylist() == ["the dog barks", "the cat sleeps"]
    assert rows.ids.to_pylist() == ["t#1", "t#2"]
    # Test sets, and the rows of gotd compare.
    assert len(_hashes(parts)[0]) > 0
    given = {"target": (name,), "candidates": (name,)}
    own = OwnFiles(given, "task", str(tmp_path / "store"), held_out_share=0.0)
    assert own.split("task", "target")["text"].to_pylist() == rows.texts.to_pylist()


def test_ids_of_a_target_that_can_be_used_are_its_ids(tmp_path):
    parts = named_parts(
        [named_rows(tmp_path / "t.jsonl", [{"id": 7}, {"id": "b"}])], Columns(), tmp_path / "record"
    )
    pool("target", parts, Chunking("whole")).build(tmp_path, {})
    (rows,) = open_pool(tmp_path)
    assert rows.ids.to_pylist() == ["7", "b"]


def test_a_target_whose_rows_are_numbered_goes_on_like_that_after_a_kill(tmp_path, monkeypatch):
    monkeypatch.setattr("gotd.data.pool.SHARD_ROWS", 1)
    name = named_rows(tmp_path / "t.jsonl", NAMES["ids that repeat"])
    step = pool("target", named_parts([name], Columns(), tmp_path / "record"), Chunking("whole"))
    written = []

    def killed(path, value):
        write_json(path, value)
        written.append(path.name)
        if len(written) == 4:  # two shards with ids, the mark, one shard of numbered rows
            raise KeyboardInterrupt

    monkeypatch.setattr("gotd.data.pool.write_json", killed)
    monkeypatch.setattr("gotd.pipeline.steps.pools.write_json", killed)
    with pytest.raises(KeyboardInterrupt):
        step.build(tmp_path, {})
    assert written == ["rows-00000.arrow", "rows-00001.arrow", "numbered.json", "rows-00000.arrow"]
    step.build(tmp_path, {})
    ids = [name for shard in open_pool(tmp_path) for name in shard.ids.to_pylist()]
    assert ids == ["t#1", "t#2"]


def test_domains_of_candidates_are_strings_or_whole_numbers(tmp_path):
    """Sibling of B3: a year is a domain; another kind has a remedy that can be followed."""
    rows = [{"domain": 2020}, {"domain": "old"}]
    table = read(Path(named_rows(tmp_path / "p.jsonl", rows)))
    assert table["domain"].to_pylist() == ["2020", "old"]
    for suffix in ("jsonl", "parquet"):
        path = Path(named_rows(tmp_path / f"q.{suffix}", [{"domain": [1]}, {"domain": [2]}]))
        with pytest.raises(ValueError, match="or name another --domain-column"):
            read(path)
    table = read(Path(named_rows(tmp_path / "r.parquet", [{"domain": 2020}, {"domain": 2021}])))
    assert table["domain"].to_pylist() == ["2020", "2021"]


def test_replay_is_numbered_where_the_candidates_are(tmp_path):
    """Sibling of B2: the error's remedy, --id-column none, did not count for replay."""
    name = named_rows(tmp_path / "r.jsonl", NAMES["ids that repeat"])
    replay = parse_replay(f"{name}:20%", Columns(id="none"), tmp_path / "record")
    (part,) = replay.parts
    (table,) = part.pieces()
    assert table["id"].to_pylist() == ["r#1", "r#2"]
    assert replay_columns(Columns(id="key")) == Columns()


def test_an_excerpt_reads_the_beginning_alone():
    """B36: 70 MB of text took 1.1 GB and 8 seconds for one line."""

    class Book(str):
        def __getitem__(self, part):
            assert part.stop <= 100_000
            return str("the dog barks " * 1000)

    assert plain_excerpt(Book("the dog barks ")).startswith("the dog barks the dog")


BAD_SCORES = {
    "strings": pa.table({"id": ["a"], "score": ["high"]}),
    "lists": pa.table({"id": ["a"], "score": [[1.0]]}),
    "infinite": pa.table({"id": ["a"], "score": [float("inf")]}),
    "list ids": pa.table({"id": [["a"]], "score": [1.0]}),
}


@pytest.mark.parametrize("name", [*BAD_SCORES, "truncated", "csv"])
def test_bad_scores_are_one_line_that_names_the_file(tmp_path, name):
    """B7: a traceback, or Arrow's words without a file."""
    path = tmp_path / "scores.parquet"
    if name in BAD_SCORES:
        pq.write_table(BAD_SCORES[name], path)
    else:
        path.write_bytes(b"id,score\na,1\n" if name == "csv" else b"PAR1abc")
    with pytest.raises(ValueError, match=r"scores\.parquet"):
        LeastToxic(path)._read()
