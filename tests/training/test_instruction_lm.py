"""Instruction tuning learns responses alone: masks, losses and cuts against plain transformers."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from gotd.training.causal_lm import CausalLMSettings
from gotd.training.causal_models import CausalSpec, load_causal_tokenizer
from gotd.training.instruction_lm import InstructionLM, InstructionLMSettings
from gotd.training.language_model import pre_fine_tune
from gotd.training.models import build_model
from gotd.training.prompts import PromptFormat, encode_pairs, encode_prompts
from gotd.training.randomness import TrainingSeeds

SEEDS = TrainingSeeds.derive(1)
WORDS = [f"w{i}" for i in range(60)]
SETTINGS = {
    "learning_rate": 3e-3,
    "epochs": 3,
    "global_batch_size": 4,
    "per_device_batch_size": 4,
    "max_length_tokens": 24,
}
TEMPLATE = (
    "{% for m in messages %}<|endoftext|> w1 {{ m['role'] == 'user' and 'w2' or 'w3' }} "
    "{{ m['content'] }} <|endoftext|>{% endfor %}"
    "{% if add_generation_prompt %}<|endoftext|> w1 w3 {% endif %}"
)


def words(start: int, count: int) -> str:
    return " ".join(WORDS[(start + i) % 60] for i in range(count))


PAIRS = [(words(7 * i, 2 + i % 6), words(7 * i + 30, 1 + i % 4)) for i in range(20)]


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    folder = tmp_path_factory.mktemp("base")
    sizes = {"hidden_size": 32, "heads": 2, "feed_forward_size": 64, "max_length_tokens": 48}
    spec = CausalSpec(tokenizer="word_level", dropout=0.0, **sizes)
    build_model(spec, WORDS, 1, folder)
    return folder


def module(base, pairs=PAIRS, **fields):
    built = InstructionLM(base, pairs, InstructionLMSettings(**{**SETTINGS, **fields}), SEEDS)
    built.initialise()
    return built


def test_only_responses_and_their_ends_are_learnt(base):
    built, tokenizer = module(base), load_causal_tokenizer(base)
    which = np.array([3, 0, 11])
    part = built.pad(which)
    for row, pair in enumerate(which):
        prompt, response = PAIRS[pair]
        labels = part["labels"][row]
        learnt = labels[labels != -100].tolist()
        assert tokenizer.decode(learnt) == f"{response} <|endoftext|>"
        length = int(part["attention_mask"][row].sum())
        assert (labels[: length - len(learnt)] == -100).all()
        assert (labels[length:] == -100).all()
        text = tokenizer.decode(part["input_ids"][row][:length])
        assert text == f"<|endoftext|> {prompt} {response} <|endoftext|>"


def plain_losses(base, pairs):
    """Sum the losses of responses by the library's own loss, one row at a time."""
    tokenizer = load_causal_tokenizer(base)
    network = AutoModelForCausalLM.from_pretrained(base).eval()
    total, count = 0.0, 0
    for prompt, response in pairs:
        first = [tokenizer.bos_token_id, *tokenizer(prompt)["input_ids"]]
        rest = [*tokenizer(response)["input_ids"], tokenizer.eos_token_id]
        labels = torch.tensor([[-100] * len(first) + rest])
        with torch.no_grad():
            mean = network(torch.tensor([first + rest]), labels=labels).loss
        total, count = total + float(mean) * len(rest), count + len(rest)
    return total, count


def test_the_loss_is_that_of_plain_transformers(base):
    built = module(base)
    batch = built.collate(0, np.arange(20))
    with torch.no_grad():
        summed = sum(float(built.sum_losses(part)) for part in batch.parts)
    wanted, count = plain_losses(base, PAIRS)
    assert len(batch.parts) == 5
    assert batch.terms == count
    assert summed / count == pytest.approx(wanted / count, abs=1e-5)


def test_training_lowers_the_loss_of_responses(base, tmp_path):
    settings = InstructionLMSettings(**{**SETTINGS, "epochs": 4})
    report = pre_fine_tune(base, PAIRS, settings, SEEDS, tmp_path / "work", tmp_path / "out")
    before, count = plain_losses(base, PAIRS)
    after, _ = plain_losses(tmp_path / "out", PAIRS)
    assert after < 0.9 * before
    assert report["response_tokens"] == count


def test_a_long_pair_keeps_its_response_and_the_end_of_its_prompt(base):
    tokenizer = load_causal_tokenizer(base)
    pairs = [(words(0, 30), words(40, 3)), (words(0, 30), words(20, 30)), ("w5", words(0, 30))]
    prompts, responses = zip(*pairs, strict=True)
    how = PromptFormat(False, "\n\n", 16)
    found = encode_pairs(tokenizer, prompts, responses, how)
    assert [len(row) for row, _ in found] == [16, 16, 16]
    assert [begin for _, begin in found] == [12, 8, 2]
    row, begin = found[0]
    assert tokenizer.decode(row) == f"<|endoftext|> {words(19, 11)} {words(40, 3)} <|endoftext|>"
    row, begin = found[1]
    assert tokenizer.decode(row[begin:]) == words(20, 8)
    with pytest.raises(ValueError, match="argument 2 is shorter"):
        encode_pairs(tokenizer, prompts, responses[:2], how)


def test_a_chat_template_is_the_tokenizers_own(base):
    tokenizer = load_causal_tokenizer(base)
    how = PromptFormat(True, "", 48)
    with pytest.raises(ValueError, match="set chat_template=false"):
        encode_prompts(tokenizer, ["w4"], how)
    tokenizer.chat_template = TEMPLATE
    ((row, begin),) = encode_pairs(tokenizer, ["w4 w5"], ["w6"], how)
    end = "<|endoftext|>"
    assert tokenizer.decode(row) == f"{end} w1 w2 w4 w5 {end} {end} w1 w3 w6 {end}"
    assert tokenizer.decode(row[begin:]) == f"w6 {end}"
    tokenizer.chat_template = "{{ messages | length }} w1"
    with pytest.raises(ValueError, match="cannot be told apart"):
        encode_pairs(tokenizer, ["w4"], ["w6"], how)


def test_the_settings_for_whole_texts_are_the_same():
    settings = InstructionLMSettings(**SETTINGS, separator=" ", tuning="lora")
    assert settings.of_texts == CausalLMSettings(**SETTINGS, tuning="lora")


def test_without_pairs_nothing_is_trained(base):
    with pytest.raises(ValueError, match="no prompts and responses"):
        module(base, [])
