"""`gotd select` with methods that read the language model that will be trained."""

import json
import logging
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from transformers import AutoModel, AutoModelForCausalLM, AutoModelForMaskedLM, AutoTokenizer

from gotd.cli.main import main
from gotd.data.pool import as_one, open_pool
from gotd.data.sampling import SPLIT_SEED
from gotd.engine.local import LocalEngine
from gotd.evaluation.target_loss import TargetLossSettings, mask_positions
from gotd.selectors.rds_plus import RDSPlus

SIZES = {"layers": 1, "hidden_size": 32, "heads": 2, "feed_forward_size": 64}


def folder_of(kind: str, given, folder: Path) -> Path:
    from gotd.training.causal_models import CausalSpec
    from gotd.training.models import ModelSpec, build_model

    spec = CausalSpec if kind == "causal" else ModelSpec
    tokenizer = "byte_level_bpe" if kind == "causal" else "wordpiece"
    made = spec(tokenizer=tokenizer, vocabulary_size=400, **SIZES)
    build_model(made, sorted(given.rows.values()), 1, folder)
    return folder


@pytest.fixture(params=["causal", "masked"])
def model(request, given, tmp_path) -> Path:
    return folder_of(request.param, given, tmp_path / request.param)


def select(given, out: Path, *more: str) -> dict:
    assert main(given.arguments("--out", str(out), "--budget", "40", *more)) == 0
    return json.loads((out / "manifest.json").read_text("utf-8"))


def mean_loss(folder: Path, name: str, text: str) -> float:
    """The mean loss of a text by plain transformers."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    if tokenizer.mask_token_id is None:
        network = AutoModelForCausalLM.from_pretrained(folder).eval()
        tokens = [tokenizer.bos_token_id, *tokenizer(text, add_special_tokens=False)["input_ids"]]
        ids = torch.tensor([tokens[: network.config.max_position_embeddings - 1]])
        return float(network(input_ids=ids, labels=ids).loss)
    network = AutoModelForMaskedLM.from_pretrained(folder).eval()
    most = network.config.max_position_embeddings
    row = np.array(tokenizer(text, truncation=True, max_length=most)["input_ids"])
    free = np.flatnonzero(~np.isin(row, tokenizer.all_special_ids))
    settings = TargetLossSettings(max_length_tokens=256)
    (masked,) = mask_positions(name, free, settings, SPLIT_SEED)
    labels = np.full(len(row), -100)
    labels[masked], row[masked] = row[masked], tokenizer.mask_token_id
    inputs = {"input_ids": torch.tensor([row.tolist()]), "labels": torch.tensor([labels.tolist()])}
    return float(network(**inputs).loss)


def test_loss_drop_is_the_change_of_the_losses_of_plain_transformers(
    given, tmp_path, model, caplog
):
    with caplog.at_level(logging.INFO):
        select(given, tmp_path / "out", "--method", "loss_drop", "--model", str(model))
    assert "loss_drop runs the model" in caplog.text
    assert "360 candidates: about" in caplog.text
    rows = pq.read_table(tmp_path / "out" / "selected.parquet").to_pylist()
    (tuned,) = (given.folder / "store" / "target_tuned").glob(f"{model.name}-*")
    for row in rows[:3] + rows[-3:]:
        change = mean_loss(tuned, row["id"], row["text"]) - mean_loss(model, row["id"], row["text"])
        assert row["score"] == pytest.approx(change, abs=2e-5)


def test_rds_plus_reads_position_weighted_states_of_the_model(given, tmp_path, model, caplog):
    with caplog.at_level(logging.INFO):
        manifest = select(given, tmp_path / "out", "--method", "rds_plus", "--model", str(model))
    assert "360 candidates: about" in caplog.text
    store = given.folder / "store"

    def of(side: str):
        parts = [(side, "pool"), (f"{side}_embeddings", "embeddings")]
        return open_pool(
            *(next((store / k).glob(f"*{manifest['keys'][s][:12]}")) for s, k in parts)
        )

    target, pool = as_one(of("target")), of("candidates")
    tokenizer, network = (
        AutoTokenizer.from_pretrained(model),
        AutoModel.from_pretrained(model).eval(),
    )
    text = target.texts[0].as_py()[:1000]
    ids = torch.tensor([tokenizer(text, truncation=True, max_length=128)["input_ids"]])
    with torch.no_grad():
        hidden = network(input_ids=ids).last_hidden_state[0]
    weights = torch.arange(1, len(hidden) + 1) / sum(range(1, len(hidden) + 1))
    expected = (weights[:, None] * hidden).sum(dim=0)
    expected = expected / expected.norm()
    np.testing.assert_allclose(target.embeddings[0], expected, atol=1e-5)
    ranking = RDSPlus().rank(target, pool, 40, 0, LocalEngine())
    chosen = pq.read_table(tmp_path / "out" / "selected.parquet")["id"].to_pylist()
    assert chosen == ranking.ids.to_pylist()


def test_a_finished_reading_of_the_model_is_found_again(given, tmp_path):
    model = folder_of("masked", given, tmp_path / "masked")
    one = select(given, tmp_path / "one", "--method", "perplexity", "--model", str(model))
    built = {path.parent.name for path in (given.folder / "store").glob("*/*")}
    more = ("--method", "perplexity", "--model", str(model), "--set", "low=0.1")
    two = select(given, tmp_path / "two", *more)
    assert {path.parent.name for path in (given.folder / "store").glob("*/*")} == built
    assert one["keys"]["losses"] == two["keys"]["losses"]


def test_less_reads_gradients_of_the_model(given, tmp_path):
    model = folder_of("masked", given, tmp_path / "masked")
    manifest = select(given, tmp_path / "out", "--method", "less", "--model", str(model))
    (warmed,) = (given.folder / "store" / "warmed_up").iterdir()
    assert (warmed / "warm_up.safetensors").is_file()
    rows = pq.read_table(tmp_path / "out" / "selected.parquet")
    assert ((rows["score"].to_numpy() >= 0) & (rows["score"].to_numpy() < 1)).all()
    assert "target_embeddings" in manifest["keys"]


@pytest.mark.parametrize("method", ["less", "loss_drop", "perplexity", "rds_plus"])
def test_a_method_that_reads_a_model_asks_for_it(given, tmp_path, capsys, method):
    out = str(tmp_path / "out")
    assert main(given.arguments("--out", out, "--budget", "5", "--method", method)) == 2
    said = capsys.readouterr().err
    assert f"{method} reads the language model that you will train: give --model" in said


def test_a_model_that_nothing_reads_is_refused(given, tmp_path, capsys):
    arguments = given.arguments("--out", str(tmp_path / "out"), "--budget", "5", "--model", "x")
    assert main(arguments) == 2
    assert "got_d with the encoder tfidf_svd reads no model" in capsys.readouterr().err


def test_a_model_that_is_not_there_is_an_error(given, tmp_path, capsys):
    more = ("--budget", "5", "--method", "perplexity", "--model", str(tmp_path / "absent"))
    assert main(given.arguments("--out", str(tmp_path / "out"), *more)) == 2
    assert "absent" in capsys.readouterr().err
