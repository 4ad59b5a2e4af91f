"""Texts in scripts that a tokenizer lacks are found, and a selection warns of them."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import numpy as np
import pytest

from gotd.cli.main import main
from gotd.embedding.coverage import LOST_SHARE, coverage_warning, lost_shares
from gotd.embedding.encoders import named_encoder

LATIN = "the cell divides and copies its genetic material"
CYRILLIC = "клетка делится и копирует"
SCRIPTS = {
    "Chinese": "细胞分裂并复制其遗传物质。科学家发现了新的蛋白质",
    "Japanese": "細胞は分裂して増える。カタカナも使います。",
    "Thai": "เซลล์แบ่งตัวและเพิ่มจำนวนในสิ่งมีชีวิต",
    "Arabic": "تنقسم الخلية وتتكاثر في الجسم",
    "Hindi": "कोशिका विभाजित होती है और बढ़ती है",
    "Korean": "세포는 분열하고 유전 물질을 복제합니다",
}


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Save a small random BERT that knows English words and Cyrillic letters."""
    import torch
    from transformers import BertConfig, BertModel, BertTokenizerFast

    folder = tmp_path_factory.mktemp("bert")
    letters = sorted(set(CYRILLIC.replace(" ", "")))
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *LATIN.split(), *letters]
    words += [f"##{letter}" for letter in letters]
    (folder / "vocab.txt").write_text("\n".join(words), "utf-8")
    BertTokenizerFast(str(folder / "vocab.txt")).save_pretrained(folder)
    config = BertConfig(
        vocab_size=len(words),
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        max_position_embeddings=40,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        BertModel(config).save_pretrained(folder)
    return folder


def test_unknown_tokens_and_words_in_single_characters_are_lost(bert):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(str(bert))
    found = lost_shares(tokenizer, [LATIN, "", CYRILLIC, SCRIPTS["Thai"], "the cell 分"], 64)
    letters = len(CYRILLIC.replace(" ", ""))
    wanted = [0, 0, (letters - len(CYRILLIC.split())) / letters, 1, 1 / 3]
    np.testing.assert_allclose(found, wanted)


def test_the_warning_has_the_share_of_rows():
    shares = np.array([0.0] * 90 + [LOST_SHARE] * 10)
    said = coverage_warning(shares, "candidates", "mini")
    assert said is not None
    assert said.startswith(
        "10% of the rows of the candidates are in a script that the encoder mini"
    )
    assert coverage_warning(np.array([0.49] * 100), "target", "mini") is None
    assert coverage_warning(np.zeros(0), "target", "mini") is None


def minilm():
    try:
        encoder = named_encoder("minilm")
        encoder.width()
    except (FileNotFoundError, ValueError):
        pytest.skip("MiniLM is not on this machine")
    return encoder


def test_minilm_covers_latin_scripts_and_no_other():
    shares = minilm().lost_shares([LATIN, "Die Zelle teilt sich", "Tế bào phân chia"])
    assert shares.max() < LOST_SHARE
    assert minilm().lost_shares([*SCRIPTS.values(), CYRILLIC]).min() > LOST_SHARE


@pytest.mark.parametrize("encoder", ["bert", "tfidf_svd"])
def test_a_selection_warns_of_scripts_that_its_encoder_lacks(bert, tmp_path, caplog, encoder):
    texts = [f"{LATIN} {i}" for i in range(30)] + [f"{SCRIPTS['Thai']} {i}" for i in range(10)]
    for name, rows in {"pool": texts, "target": texts[:5]}.items():
        lines = "\n".join(json.dumps({"text": text}) for text in rows)
        (tmp_path / f"{name}.jsonl").write_text(lines)
    arguments = [
        "select",
        "--budget",
        "3",
        "--encoder",
        str(bert) if encoder == "bert" else encoder,
    ]
    for name in ("store", "out"):
        arguments += [f"--{name}", str(tmp_path / name)]
    arguments += ["--target", str(tmp_path / "target.jsonl")]
    with caplog.at_level(logging.WARNING):
        assert main([*arguments, "--candidates", str(tmp_path / "pool.jsonl")]) == 0
    said = [line for line in caplog.messages if "in a script" in line]
    if encoder == "tfidf_svd":
        assert said == []
    else:
        (line,) = said
        assert line.startswith("25% of the rows of the candidates")
