import numpy as np
import pyarrow as pa
import pytest
import torch
from transformers import TopPLogitsWarper

from gotd.evaluation import generation
from gotd.evaluation.generation import GenerationSettings, continue_prompts, sample_nucleus
from gotd.evaluation.likelihood import load_for_scoring

SETTINGS = GenerationSettings(samples=3, max_new_tokens=6)
ALPHABET = list("the cat sat on a mat.")


@pytest.fixture(scope="module", params=["gpt2", "gpt_neo"])
def model(request):
    return load_for_scoring(
        request.getfixturevalue(f"{request.param}_folder".replace("gpt2", "gpt"))
    )


def letters(n, seed=0):
    return "".join(np.random.default_rng(seed).choice(ALPHABET, n))


@pytest.fixture(scope="module")
def prompts():
    texts = [letters(n, seed) for seed, n in enumerate((1, 9, 4, 30, 6, 9, 13, 7))]
    return pa.table({"id": [f"p{i}" for i in range(len(texts))], "text": texts})


def test_greedy_limit_is_what_transformers_generates(model, prompts):
    network, tokenizer = model
    settings = GenerationSettings(samples=2, max_new_tokens=6, top_p=1e-9)
    found = continue_prompts(network, tokenizer, prompts, settings, seed=1)
    for text, written in zip(prompts["text"].to_pylist(), found["continuations"], strict=True):
        ids = tokenizer(text, return_tensors="pt")
        plain = network.generate(
            **ids, do_sample=False, max_new_tokens=6, pad_token_id=tokenizer.eos_token_id
        )
        expected = tokenizer.decode(plain[0, ids["input_ids"].shape[1] :], skip_special_tokens=True)
        assert written.as_py() == [expected, expected]


def test_every_token_is_the_draw_from_the_nucleus_of_transformers(model, prompts):
    """Again without cache, batch or padding, and with transformers' own nucleus."""
    network, tokenizer = model
    warper = TopPLogitsWarper(SETTINGS.top_p)
    rows = tokenizer(prompts["text"].to_pylist())["input_ids"]
    chances = np.stack([generation._chances(SETTINGS, 1, n) for n in prompts["id"].to_pylist()])
    written = generation._continue(network, rows, chances, SETTINGS, tokenizer.eos_token_id)
    checked = left_out = 0
    for number, tokens in enumerate(written):
        prompt, sample = divmod(number, SETTINGS.samples)
        ids = list(rows[prompt])
        for step, token in enumerate(tokens):
            with torch.no_grad():
                logits = network(input_ids=torch.tensor([ids])).logits[:, -1]
            kept = warper(None, logits).softmax(-1)[0].double()
            left_out += int((kept == 0).sum())
            order = kept.argsort(descending=True)
            place = (kept[order].cumsum(0) > chances[prompt, sample, step]).nonzero()[0, 0]
            assert order[place] == token
            ids.append(token)
            checked += 1
    assert checked > 60
    assert left_out > 0


def test_a_continuation_depends_on_seed_prompt_and_sample_alone(model, prompts):
    network, tokenizer = model
    whole = continue_prompts(network, tokenizer, prompts, SETTINGS, seed=1)
    one_by_one = GenerationSettings(samples=3, max_new_tokens=6, per_device_batch_size=1)
    turned = prompts.take(list(reversed(range(prompts.num_rows))))
    again = continue_prompts(network, tokenizer, turned, one_by_one, seed=1)
    assert again["continuations"].to_pylist()[::-1] == whole["continuations"].to_pylist()
    other = continue_prompts(network, tokenizer, prompts, SETTINGS, seed=2)
    assert other["continuations"].to_pylist() != whole["continuations"].to_pylist()
    more = GenerationSettings(samples=5, max_new_tokens=6)
    longer = continue_prompts(network, tokenizer, prompts, more, seed=1)
    first = [row[:3] for row in longer["continuations"].to_pylist()]
    assert first == whole["continuations"].to_pylist()
    assert all(len(set(row)) > 1 for row in first)


def test_a_killed_generation_goes_on(model, prompts, tmp_path, monkeypatch):
    network, tokenizer = model
    monkeypatch.setattr("gotd.evaluation.ranges.ROWS_PER_RANGE", 3)
    whole = continue_prompts(network, tokenizer, prompts, SETTINGS, seed=1)
    written = generation._continue

    def stop(network, rows, *others):
        if len(list(tmp_path.glob("range-*.parquet"))) == 2:
            raise KeyboardInterrupt
        return written(network, rows, *others)

    monkeypatch.setattr(generation, "_continue", stop)
    with pytest.raises(KeyboardInterrupt):
        continue_prompts(network, tokenizer, prompts, SETTINGS, seed=1, work=tmp_path)
    monkeypatch.setattr(generation, "_continue", written)
    resumed = continue_prompts(network, tokenizer, prompts, SETTINGS, seed=1, work=tmp_path)
    assert resumed.equals(whole)


def test_long_prompts_lose_their_beginning_and_say_so(model):
    network, tokenizer = model
    text = letters(80)
    ids = tokenizer(text)["input_ids"]
    texts = [text, tokenizer.decode(ids[-58:]), ""]
    assert tokenizer(texts[1])["input_ids"] == ids[-58:]
    rows = pa.table({"id": ["long", "end", "empty"], "text": texts})
    settings = GenerationSettings(samples=1, max_new_tokens=6, top_p=1e-9)
    found = continue_prompts(network, tokenizer, rows, settings, seed=1)
    assert found["cut"].to_pylist() == [True, False, False]
    long, end, empty = found["continuations"].to_pylist()
    assert long == end
    assert len(empty) == 1


def test_nucleus_follows_its_distribution():
    logits = torch.tensor([[2.0, 1.0, 0.5, -1.0, -4.0]]).repeat(20_000, 1)
    chance = torch.from_numpy(np.random.default_rng(0).random(20_000))
    drawn = sample_nucleus(logits, chance, 0.9, 2.0)
    kept = TopPLogitsWarper(0.9)(None, logits[:1] / 2.0).softmax(-1)[0]
    share = torch.bincount(drawn, minlength=5) / 20_000
    torch.testing.assert_close(share, kept, atol=0.015, rtol=0)
    assert (share[kept == 0] == 0).all()


def test_rows_whose_nucleus_is_wider_than_what_is_ordered_at_first(monkeypatch):
    random = torch.Generator().manual_seed(0)
    sharpness = torch.tensor([0.0, 0.5, 3.0, 30.0]).repeat(20)[:, None]
    logits = torch.randn(80, 1000, generator=random) * sharpness
    chance = torch.linspace(0.0, 1.0, 81, dtype=torch.float64)[:-1]
    monkeypatch.setattr(generation, "NUCLEUS_SIZES", ())
    whole = sample_nucleus(logits, chance, 0.9, 1.0)
    monkeypatch.setattr(generation, "NUCLEUS_SIZES", (16, 256))
    apart = sample_nucleus(logits, chance, 0.9, 1.0)
    untied = sharpness[:, 0] > 0  # which of equal tokens comes first is nobody's business
    assert apart[untied].tolist() == whole[untied].tolist()
    assert len(set(apart[~untied].tolist())) > 10
    assert sample_nucleus(logits[:, :7], chance, 1.0, 1.0).max() < 7


@pytest.mark.parametrize(
    "field", [{"samples": 0}, {"top_p": 0.0}, {"temperature": 0.0}, {"precision": "fp8"}]
)
def test_settings_that_cannot_generate_are_refused(field):
    with pytest.raises(ValueError, match=next(iter(field))):
        GenerationSettings(**field)
