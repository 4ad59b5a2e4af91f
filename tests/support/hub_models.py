"""Tiny models in the files of the published ones: their names, weights and tokenizers.

Where a published file differs from what `save_pretrained` writes today, so do these: BERT's
layer norms are ``gamma`` and ``beta``, GPT-2's weights have no prefix, but buffers of masks, and
GPT-Neo has no ``tokenizer.json``.
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from functools import cache
from typing import Any

import torch
import transformers
from hub_rows import WORDS
from hub_stand_in import HubStandIn
from safetensors.torch import save
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

WIDTH, HEADS = 32, 2
BERT, DISTILBERT = "google-bert/bert-base-uncased", "distilbert/distilbert-base-uncased"
MNLI, ROBERTA = "ishan/bert-base-uncased-mnli", "FacebookAI/roberta-base"
HATE = "facebook/roberta-hate-speech-dynabench-r4-target"
GPT2 = [f"openai-community/gpt2{size}" for size in ("", "-medium", "-large", "-xl")]
GPT_NEO = [f"EleutherAI/gpt-neo-{size}" for size in ("125m", "1.3B", "2.7B")]
TOXIC = ["toxic", "severe_toxic", "obscene", "threat", "insult", "identity_hate"]
SPECIAL, END = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"], "<|endoftext|>"
CARD = b"---\nlicense: apache-2.0\n---\n"

Files = dict[str, bytes]


def fill_models(hub: HubStandIn) -> None:
    """Put every model that the scale of the paper names on a stand-in of the Hub."""
    hub.commit(f"models/{BERT}", bert())
    hub.commit(f"models/{DISTILBERT}", distilbert())
    hub.commit(f"models/{ROBERTA}", roberta([]))
    hub.commit(f"models/{HATE}", roberta(["nothate", "hate"]))
    for name in GPT2:
        hub.commit(f"models/{name}", gpt2())
    for name in GPT_NEO:
        hub.commit(f"models/{name}", gpt_neo())
    # Its main branch has no safetensors; a pull request of it has.
    weights = bert_classifier()
    old = {name: content for name, content in weights.items() if name != "model.safetensors"}
    hub.commit(f"models/{MNLI}", weights, "refs/pr/1")
    hub.commit(f"models/{MNLI}", {**old, "pytorch_model.bin": b"no weights"})


def bert(seed: int = 0) -> Files:
    """Return the files of BERT with both of its heads."""
    torch.manual_seed(seed)
    network = transformers.BertForPreTraining(transformers.BertConfig(**_bert()))
    state = {_old_name(k): v for k, v in network.state_dict().items() if "decoder" not in k}
    return _with(_word_pieces(), {"architectures": ["BertForMaskedLM"], **_bert()}, state)


def bert_classifier() -> Files:
    """Return the files of a BERT that was fine-tuned on MNLI."""
    torch.manual_seed(1)
    config = {**_bert(), "architectures": ["BertForSequenceClassification"]}
    config["id2label"] = {str(i): f"LABEL_{i}" for i in range(3)}
    network = transformers.BertForSequenceClassification(transformers.BertConfig(**config))
    return _with(_word_pieces(), config, network.state_dict())


def detoxify() -> bytes:
    """Return a checkpoint in Detoxify's format."""
    torch.manual_seed(7)
    config = transformers.BertConfig(**_bert(), num_labels=len(TOXIC))
    state = transformers.BertForSequenceClassification(config).state_dict()
    state["bert.embeddings.position_ids"] = torch.arange(512)[None]  # of older releases
    arch = {
        "num_classes": len(TOXIC),
        "model_type": "bert-base-uncased",
        "model_name": "BertForSequenceClassification",
        "tokenizer_name": "BertTokenizer",
    }
    settings = {"arch": {"type": "BERT", "args": arch}, "dataset": {"args": {"classes": TOXIC}}}
    buffer = io.BytesIO()
    torch.save({"state_dict": state, "config": settings}, buffer)
    return buffer.getvalue()


def distilbert(seed: int = 2) -> Files:
    """Return the files of DistilBERT, whose head shares the word embeddings."""
    torch.manual_seed(seed)
    sizes = {"dim": WIDTH, "hidden_dim": 2 * WIDTH, "n_heads": HEADS, "n_layers": 1}
    config = {"vocab_size": _words(), "max_position_embeddings": 512, "pad_token_id": 0, **sizes}
    network = transformers.DistilBertForMaskedLM(transformers.DistilBertConfig(**config))
    state = {k: v for k, v in network.state_dict().items() if k != "vocab_projector.weight"}
    named = {"model_type": "distilbert", "architectures": ["DistilBertForMaskedLM"], **config}
    return _with(_word_pieces(), named, state)


def roberta(classes: list[str]) -> Files:
    """Return the files of RoBERTa, or of a classifier of its kind."""
    torch.manual_seed(3)
    words = ["<s>", "<pad>", "</s>", "<unk>", *_bytes(), "<mask>"]
    config: dict[str, Any] = _bert() | {
        "model_type": "roberta",
        "vocab_size": len(words),
        "bos_token_id": 0,
        "eos_token_id": 2,
        "pad_token_id": 1,
        "max_position_embeddings": 514,
        "type_vocab_size": 1,
        "layer_norm_eps": 1e-5,
    }
    if classes:
        config["id2label"] = {str(i): name for i, name in enumerate(classes)}
        made = transformers.RobertaForSequenceClassification(transformers.RobertaConfig(**config))
        state = made.state_dict()
    else:
        made = transformers.RobertaForMaskedLM(transformers.RobertaConfig(**config))
        state = {k: v for k, v in made.state_dict().items() if "decoder" not in k}
    named = {"bos": "<s>", "eos": "</s>", "unk": "<unk>", "sep": "</s>", "pad": "<pad>"}
    named |= {"cls": "<s>", "mask": "<mask>"}
    files = {
        "vocab.json": _json({word: i for i, word in enumerate(words)}),
        "merges.txt": b"#version: 0.2\n",
        "tokenizer_config.json": _json({"model_max_length": 512}),
        "special_tokens_map.json": _json({f"{k}_token": v for k, v in named.items()}),
    }
    return _with(files, {**config, "architectures": [type(made).__name__]}, state)


def gpt2(seed: int = 4) -> Files:
    """Return the files of GPT-2 with its old names of weights, and a tokenizer of bytes."""
    torch.manual_seed(seed)
    words = [*_bytes(), END]
    config = {
        "vocab_size": len(words),
        "n_positions": 1024,
        "n_embd": WIDTH,
        "n_layer": 1,
        "n_head": HEADS,
        "bos_token_id": len(words) - 1,
        "eos_token_id": len(words) - 1,
    }
    state = transformers.GPT2LMHeadModel(transformers.GPT2Config(**config)).state_dict()
    state = {k.removeprefix("transformer."): v for k, v in state.items() if "lm_head" not in k}
    state["h.0.attn.bias"] = torch.tril(torch.ones(1024, 1024))[None, None].clone()
    named = {"model_type": "gpt2", "architectures": ["GPT2LMHeadModel"], "n_ctx": 1024, **config}
    files = _byte_pairs(words) | {"tokenizer_config.json": _json({"model_max_length": 1024})}
    made = Tokenizer(models.BPE({word: i for i, word in enumerate(words)}, []))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    made.post_processor = processors.ByteLevel(trim_offsets=False)
    made.add_special_tokens([END])
    return _with({**files, "tokenizer.json": made.to_str().encode()}, named, state)


def gpt_neo() -> Files:
    """Return the files of GPT-Neo, whose tokenizer has no file of its own."""
    torch.manual_seed(5)
    words = [*_bytes(), END]
    config = {
        "vocab_size": len(words),
        "max_position_embeddings": 2048,
        "hidden_size": WIDTH,
        "num_layers": 2,
        "num_heads": HEADS,
        "attention_types": [[["global", "local"], 1]],
        "window_size": 256,
        "bos_token_id": len(words) - 1,
        "eos_token_id": len(words) - 1,
        "resid_dropout": 0,
        "embed_dropout": 0,
        "attention_dropout": 0,
    }
    state = transformers.GPTNeoForCausalLM(transformers.GPTNeoConfig(**config)).state_dict()
    state = {k: v for k, v in state.items() if "lm_head" not in k}
    for layer in range(2):
        state[f"transformer.h.{layer}.attn.attention.masked_bias"] = torch.tensor(-1e9)
    named = {"model_type": "gpt_neo", "architectures": ["GPTNeoForCausalLM"], **config}
    settings = {"model_max_length": 2048, "tokenizer_class": "GPT2Tokenizer"}
    settings |= {f"{name}_token": END for name in ("unk", "bos", "eos")}
    return _with(_byte_pairs(words) | {"tokenizer_config.json": _json(settings)}, named, state)


def _bert() -> dict[str, Any]:
    return {
        "model_type": "bert",
        "hidden_size": WIDTH,
        "num_hidden_layers": 1,
        "num_attention_heads": HEADS,
        "intermediate_size": 2 * WIDTH,
        "max_position_embeddings": 512,
        "vocab_size": _words(),
        "pad_token_id": 0,
    }


def _with(files: Files, config: Mapping[str, Any], state: Mapping[str, torch.Tensor]) -> Files:
    weights = save({k: v.contiguous() for k, v in state.items()}, {"format": "pt"})
    more = {"config.json": _json(config), "model.safetensors": weights, "README.md": CARD}
    return {**files, **more, "onnx/config.json": b"{}"}  # what is never to be read


def _old_name(name: str) -> str:
    """Return the name of a weight in BERT's first release."""
    for new, old in ((".weight", ".gamma"), (".bias", ".beta")):
        if name.endswith(f"LayerNorm{new}"):
            return name.removesuffix(new) + old
    return name


@cache
def _vocabulary() -> tuple[str, ...]:
    letters = "abcdefghijklmnopqrstuvwxyz0123456789"
    marks = [*".,;:!?'\"-()[]/&_"]
    pieces = [*letters, *(f"##{letter}" for letter in letters)]
    return (*SPECIAL, *marks, *pieces, *(word for word in WORDS if len(word) > 1))


def _words() -> int:
    return len(_vocabulary())


def _word_pieces() -> Files:
    """Return the files of BERT's tokenizer."""
    words = {word: i for i, word in enumerate(_vocabulary())}
    made = Tokenizer(models.WordPiece(words, unk_token="[UNK]"))
    made.normalizer = normalizers.BertNormalizer(lowercase=True)
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    ids = [(one, words[one]) for one in ("[CLS]", "[SEP]")]
    pair = "[CLS]:0 $A:0 [SEP]:0 $B:1 [SEP]:1"
    made.post_processor = processors.TemplateProcessing("[CLS]:0 $A:0 [SEP]:0", pair, ids)
    made.decoder = decoders.WordPiece()
    return {
        "vocab.txt": "".join(f"{word}\n" for word in words).encode(),
        "tokenizer.json": made.to_str().encode(),
        "tokenizer_config.json": _json({"do_lower_case": True, "model_max_length": 512}),
    }


def _bytes() -> list[str]:
    return sorted(pre_tokenizers.ByteLevel.alphabet())


def _byte_pairs(words: list[str]) -> Files:
    numbered = {word: i for i, word in enumerate(words)}
    return {"vocab.json": _json(numbered), "merges.txt": b"#version: 0.2\n"}


def _json(value: Any) -> bytes:
    return json.dumps(value, indent=1).encode()
