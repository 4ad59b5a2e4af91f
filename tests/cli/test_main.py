"""The commands themselves: fast to start, and one line for a mistake."""

from __future__ import annotations

import io
import logging
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import gotd
from gotd.cli import main as command
from gotd.cli.main import _Formatter, main, printable, printable_lines
from gotd.cli.parser import Parser, whole_numbers
from gotd.runs import sweep
from gotd.storage.printing import command_line

HEAVY = {"torch", "numpy", "pyarrow", "transformers", "hydra", "omegaconf", "rich", "scipy"}


def test_help_imports_nothing_heavy():
    program = (
        "import sys\nfrom gotd.cli.main import main\n"
        "try:\n    main(['--help'])\nexcept SystemExit:\n    pass\n"
        f"print('imported', sorted(set(sys.modules) & {HEAVY}))"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(gotd.__file__).parents[1])}
    printed = subprocess.check_output(
        [sys.executable, "-c", program], env=environment, text=True, timeout=60
    )
    assert printed.splitlines()[-1] == "imported []"


def test_the_version_is_printed(capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["--version"])
    assert stopped.value.code == 0
    assert capsys.readouterr().out == f"gotd {gotd.__version__}\n"


def test_a_shell_is_told_what_can_follow():
    environment = {
        **os.environ,
        "PYTHONPATH": str(Path(gotd.__file__).parents[1]),
        "_ARGCOMPLETE": "1",
        "_ARGCOMPLETE_STDOUT_FILENAME": "/dev/stdout",
        "_ARGCOMPLETE_SHELL": "bash",
        "COMP_LINE": "gotd select --ex",
        "COMP_POINT": "16",
    }
    said = subprocess.check_output(
        [sys.executable, "-m", "gotd.cli.main"], env=environment, text=True, timeout=60
    )
    assert said.replace("\x0b", "\n").split() == ["--explain", "--exclude"]


def test_run_passes_experiment_and_overrides_on(monkeypatch):
    calls = []
    monkeypatch.setattr(sweep, "run", lambda *given: calls.append(given) or 7)
    assert main(["run", "selector=got_d,dsir", "experiment=labels", "seed=1", "-m"]) == 7
    assert calls == [("labels", ["selector=got_d,dsir", "seed=1", "-m"])]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "seed=1"], "gotd run: no experiment given; add experiment=…, one of: domain"),
        (["run", "experiment=nope"], "there is no experiment=nope; the experiments are domain,"),
        (["run", "experiment=GAP"], "did you mean gap for GAP?"),
        (["plan", "experimnt=gap"], "did you mean experiment for experimnt?"),
        (["plan", "experiment=glue", "modle=micro"], "did you mean model for modle?"),
        (
            ["plan", "experiment=glue", "pre_fine_tune.lerning_rate=1"],
            "did you mean learning_rate for lerning_rate?",
        ),
        (["run", "experiment=grd"], "did you mean grid for grd?"),
        (["run", "experiment=gap", "scale=foldr"], "its scales are folder, micro, paper"),
        (["run", "experiment=gap", "scale=foldr"], "did you mean folder for foldr?"),
        (["run", "experiment=glue", "budget=abc"], "budget=abc"),
        (
            ["fetch", "experiment=glue", "task=cola", "selector=none", "seed=1"],
            "gotd fetch: the source microworld has nothing to fetch",
        ),
    ],
)
def test_a_mistake_is_one_line(capsys, arguments, message):
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_a_run_and_its_repetition(tmp_path, capsys):
    cell = ["task=cola", "selector=none", "seed=1", "tracker=none", f"store={tmp_path}"]
    small = [
        *("source.pretraining_documents=150", "source.candidate_documents=800"),
        *("source.rare_share=0.1", "source.labels=40", "source.evaluation_rows=32"),
        *("limits.validation_rows=8", "model.pretraining.epochs=0.5", "fine_tune.epochs=1"),
    ]
    command = ["run", "experiment=glue", *cell, *small]
    assert main(command) == 0
    assert "glue: 1 cells, 1 to run" in capsys.readouterr().out
    assert main(command) == 0
    printed = capsys.readouterr().out
    assert "to run" not in printed
    assert "1 cells done, 0 failed, 0 missing" in printed
    (table,) = tmp_path.glob("reports/glue-micro-*/tables/glue.md")
    assert "gotd run experiment=glue task=cola" in table.read_text()


def test_doctor_lists_what_is_optional(capsys, monkeypatch):
    monkeypatch.setenv("DATA", "/nowhere/[red]a\x1b[31m")
    main(["doctor"])
    printed = capsys.readouterr().out
    for package in ("ray", "s3fs", "gcsfs", "submitit", "lm_eval"):
        assert f"{package} (optional)" in printed
    assert "[red]a\\x1b[31m" in printed


def test_no_data_steers_a_terminal():
    text = "a \x1b[31mred\x9b\n\t\u00e9\u4e2d"
    assert printable(text) == "a \\x1b[31mred\\x9b\\n\\t\u00e9\u4e2d"
    assert printable_lines(text) == "a \\x1b[31mred\\x9b\n\t\u00e9\u4e2d"
    assert printable("\ud800\u2028\u202e") == "\\ud800\\u2028\\u202e"


@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash")
def test_a_command_can_be_pasted_into_a_shell():
    """A line break was shown as two signs within the quotes."""
    odd = ["a\nb", "it's\\\x1b[31m\u2028\x85", "\udc80x\udcff", "a b", '$HOME\n"`', "", "é"]
    line = command_line(["gotd", *odd, "--where=lang == 'en'"])
    assert printable(line) == line
    program = f"LC_ALL=C.UTF-8; printf '%s\\0' {line}"
    read = subprocess.check_output(["bash", "-c", program]).split(b"\0")[:-1]
    assert read == [os.fsencode(word) for word in ("gotd", *odd, "--where=lang == 'en'")]
    assert command_line(["gotd", "seed=1,2", "a b"]) == "gotd seed=1,2 'a b'"


def test_an_error_shows_no_control_character(tmp_path, capsys):
    absent = tmp_path / "a\x1b[31m\n\t.jsonl"
    given = ["--target", str(absent), "--candidates", str(absent), "--budget", "1"]
    assert main(["select", *given, "--out", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert "\\x1b[31m\\n\\t.jsonl" in error
    assert error.count("\n") == 1


def test_a_message_of_gotd_is_one_line_and_others_are_as_they_are():
    shown = _Formatter("%(message)s")
    broken = ("pool\x1b\nmy.jsonl",)
    for name, expected in (
        ("gotd.data", "a\\npool\\x1b\\nmy.jsonl"),
        ("ray", "a\npool\\x1b\nmy.jsonl"),
    ):
        record = logging.LogRecord(name, logging.INFO, "", 0, "a\n%s", broken, None)
        assert shown.format(record) == expected


@pytest.mark.parametrize(
    ("arguments", "meant"),
    [
        (
            ["select", "--target", "a", "--candidates", "b", "--methd", "got_d"],
            "--method for --methd",
        ),
        (["select", "--targt", "a", "--candidates=b"], "--target for --targt"),
        (["diff", "a", "b", "--frist=3"], "--first for --frist"),
        (
            ["compare", "--candidates", "b", "--budget", "5", "--seed-s", "2"],
            "--seeds for --seed-s",
        ),
        (["export", "--ouy", "x", "seed=1"], "--out for --ouy"),
        (["--verison"], "--version for --verison"),
        (["selct", "--target", "a"], "select for selct"),
        (["select", "--target", "a", "--candidates", "b", "--dedup=nere"], "near for nere"),
        (["compare", "--candidates", "b", "--outcome", "los"], "loss for los"),
    ],
)
def test_a_misspelt_option_is_named_with_the_one_that_was_meant(capsys, arguments, meant):
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert stopped.value.code == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert f"; did you mean {meant}?" in error


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        (["run", "--multirn"], "no flag --multirn; did you mean --multirun for --multirn?"),
        (["run", "experiment=glue", "--inf"], "did you mean --info for --inf?"),
        (["run", "experiment=glue", "--cfg=job"], "did you mean --cfg for --cfg?"),
        (["run", "--experiment=glue"], "overrides have no dashes: write experiment=glue"),
        (["run", "experiment=glue", "--seed=1"], "overrides have no dashes: write seed=1"),
        (["run", "experiment=glue", "--nothing"], "overrides have the form name=value"),
        (["plan", "--model=micro"], "overrides have no dashes: write model=micro"),
        (["export", "--out=x", "a=b", "--seed=1"], "overrides have no dashes: write seed=1"),
        (["fetch", "--modles", "a=b"], "did you mean --models for --modles?"),
    ],
)
def test_an_override_or_a_flag_that_is_misspelt_is_named(capsys, arguments, hint):
    try:
        status = main(arguments)
    except SystemExit as stopped:  # of the parser, with the usage above
        status = stopped.code
    assert status == 2
    assert capsys.readouterr().err.splitlines()[-1].endswith(hint)


def test_a_flag_may_come_before_the_experiment(monkeypatch):
    calls = []
    monkeypatch.setattr(sweep, "run", lambda *given: calls.append(given) or 0)
    assert main(["run", "--multirun", "experiment=glue", "seed=1,2"]) == 0
    assert main(["run", "--cfg", "job", "experiment=glue"]) == 0
    assert calls == [("glue", ["--multirun", "seed=1,2"]), ("glue", ["--cfg", "job"])]


def test_the_beginning_of_an_option_and_an_odd_value_are_no_mistakes(capsys):
    with pytest.raises(SystemExit):
        main(["select", "--cand", "a", "--target", "b", "--methdo\n", "x"])
    error = capsys.readouterr().err.splitlines()[-1]
    assert "unrecognized arguments: --methdo\\n x; did you mean --method for" in error
    assert "--cand" not in error
    with pytest.raises(SystemExit):
        main(["report", "--nothing-like-it"])
    assert "did you mean" not in capsys.readouterr().err


def test_a_handler_does_not_outlive_its_command(monkeypatch):
    """The next command in the process logged to a stream that was closed."""
    root = logging.getLogger()
    monkeypatch.setattr(root, "handlers", [])
    monkeypatch.setattr(command, "_report", lambda _: logging.getLogger("gotd").info("read"))
    level = root.level
    for _ in range(2):
        with io.StringIO() as stream:
            monkeypatch.setattr(sys, "stderr", stream)
            assert main(["report", "x"]) == 0
            assert stream.getvalue() == "read\n"
        assert (root.handlers, root.level) == ([], level)


def test_the_handlers_of_a_caller_are_there_again(monkeypatch):
    """Hydra replaces them."""
    root, own = logging.getLogger(), logging.NullHandler()
    monkeypatch.setattr(root, "handlers", [own])

    def replace(_: object) -> None:
        root.handlers = [logging.StreamHandler(io.StringIO())]

    monkeypatch.setattr(command, "_report", replace)
    assert main(["report", "x"]) == 0
    assert root.handlers == [own]


@pytest.mark.parametrize(
    ("name", "level", "shown"),
    [
        ("gotd.runs.sweep", logging.INFO, True),
        ("library.part", logging.INFO, False),
        ("library.part", logging.WARNING, True),
    ],
)
def test_libraries_show_their_warnings_alone(monkeypatch, capsys, name, level, shown):
    root = logging.getLogger()
    monkeypatch.setattr(root, "handlers", [])
    monkeypatch.setattr(command, "_report", lambda *_: logging.getLogger(name).log(level, "said"))
    assert main(["report", "x"]) == 0
    assert capsys.readouterr().err == ("said\n" if shown else "")


@pytest.mark.parametrize(("name", "value"), command.ENVIRONMENT.items())
@pytest.mark.parametrize("given", [None, "7"])
def test_what_torch_reads_is_set_unless_the_user_has_set_it(monkeypatch, name, value, given):
    monkeypatch.setenv(name, "")  # is set again after the test
    monkeypatch.delenv(name)
    if given is not None:
        monkeypatch.setenv(name, given)
    with pytest.raises(SystemExit):
        main(["--version"])
    assert os.environ[name] == (given or value)


@pytest.mark.parametrize("given", ["", "1,", "1.5", "a", "1;2"])
def test_whole_numbers_of_a_script_are_refused_with_an_example(given, capsys):
    parser = Parser(prog="script")
    parser.add_argument("--seeds", type=whole_numbers, default="1,2")
    assert parser.parse_args([]).seeds == [1, 2]
    with pytest.raises(SystemExit):
        parser.parse_args(["--seeds", given])
    assert "is not whole numbers with commas between them, such as 1,2" in capsys.readouterr().err
