"""The memory that training or scoring a model takes, before it is tried.

Everything that is large is counted: weights, gradients, AdamW's two moments, the copies
that mixed precision makes of weights, activations with and without recomputation, the
logits over the vocabulary, keys and values kept while scoring. What a layer saves for
its backward pass was read off autograd for each architecture; results/benchmarks/memory.md
holds the estimates against measured peaks.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace

from gotd.storage.shapes import Shape

GIB = 2.0**30
MIXED_BYTES, BF16_BYTES = 2.35, 2.1
"""Bytes of a saved number under bf16 arithmetic, where norms and softmaxes take four, and
with bf16 weights alone, where only adapters and some attention do."""
LOGIT_BYTES = 12
"""Bytes of a logit at the start of the backward pass: log-probability and two gradients."""
RUNTIME_GIB = 0.5
"""The process with torch and transformers loaded (measured: 0.47)."""
HEAD_ROWS, HEAD_TILE = 512, 4096
"""Positions and tokens that scoring gives logits at once (`gotd.evaluation.likelihood`)."""


@dataclass(frozen=True)
class Family:
    """What a layer saves for its backward pass, as multiples of its sizes (float32, eager).

    Args:
        states: Vectors of the hidden size a token.
        inner: Vectors of the feed-forward size a token.
        adapted: Weight matrices that LoRA adapts, each as inputs and outputs in hidden sizes.
        attends_in_float32: Whether scores, and what they are computed of, are float32 for
            bf16 weights too.
    """

    states: float
    inner: float
    adapted: tuple[tuple[int, int], ...]
    attends_in_float32: bool = False


FAMILIES: Mapping[str, Family] = {
    "bert": Family(8, 2, ((1, 1), (1, 1))),
    "gpt2": Family(8, 2, ((1, 3),)),
    "gpt_neo": Family(8, 2, ((1, 1), (1, 1)), attends_in_float32=True),
}
SPARED_BY_LORA = (2, 1)
"""Of ``states`` and ``inner``: inputs of frozen weights, which need no gradient."""
SCORES, SCORES_WITHOUT_DROPOUT = 2, 1
"""Matrices ``heads x length`` of attention a token: before and after dropout, and without."""
MASKS = 2
"""Masks of dropout of the hidden size a token, a byte an element; one more of the scores."""


@dataclass(frozen=True)
class Memory:
    """Bytes of each part at the moment of the peak, on each device."""

    weights: float
    gradients: float = 0.0
    moments: float = 0.0
    casts: float = 0.0
    activations: float = 0.0
    logits: float = 0.0
    cache: float = 0.0
    file: float = 0.0
    """Weights of the file, mapped while they are converted."""

    @property
    def gib(self) -> float:
        """Return the sum in GiB, without the process itself."""
        return sum(asdict(self).values()) / GIB


@dataclass(frozen=True)
class Training:
    """How a language model or a classifier is trained.

    Args:
        rows: Rows a device handles at once.
        length_tokens: Tokens of each.
        tuning: ``full`` or ``lora``.
        weights: ``float32`` or ``bf16``.
        precision: ``float32`` or ``bf16``.
        gradient_checkpointing: Whether layers are recomputed.
        predicted: Share of the tokens that get logits: 1 for a causal model, the mask
            probability for a masked one, 0 for a classifier.
        dropout: Whether there is any.
        lora_rank: Rank of the additions.
        devices: Devices that share the work.
        strategy: ``ddp`` repeats all on each device, ``fsdp`` shards weights, gradients
            and moments.
        stored: Type of the weights in the model's file, as ``weights``.
    """

    rows: int
    length_tokens: int
    tuning: str = "full"
    weights: str = "float32"
    precision: str = "float32"
    gradient_checkpointing: bool = False
    predicted: float = 1.0
    dropout: bool = True
    lora_rank: int = 8
    devices: int = 1
    strategy: str = "ddp"
    stored: str = "float32"


def training_memory(shape: Shape, how: Training) -> Memory:
    """Estimate the peak of training, on each device.

    The peak is the larger of two moments: the start of the backward pass, when all
    activations and logits are there and no gradient is, and its end, when it is the
    other way round. Weights and moments are there in both. A small batch's peak may lie
    before both, where weights are converted from the file's type.
    """
    shards = how.devices if how.strategy == "fsdp" else 1
    wide = 2 if how.weights == "bf16" else 4
    trained = shape.weights if how.tuning == "full" else adapter_weights(shape, how)
    kept = wide if how.tuning == "full" else 4  # additions stay float32
    mixed = how.precision == "bf16"
    layer = activations(shape, how)
    if how.gradient_checkpointing:
        number = 4 if how.weights == "float32" else 2
        inputs = how.rows * how.length_tokens * shape.hidden * number
        saved = shape.layers * inputs + layer
    else:
        saved = shape.layers * layer
    casts = 2.0 * shape.multiplied if mixed and how.weights == "float32" else 0.0
    if how.gradient_checkpointing and how.tuning == "lora":
        casts /= shape.layers  # frozen weights are cast layer by layer
    if shards > 1:
        casts += 2 * wide * shape.multiplied / shape.layers  # the layers gathered just now
    positions = how.rows * how.length_tokens * how.predicted
    logits = LOGIT_BYTES * positions * shape.vocabulary
    gradients = kept * trained / shards
    start = {"casts": casts, "activations": saved, "logits": logits}
    at_start = sum(start.values()) >= gradients
    memory = Memory(
        weights=(wide * shape.weights + (4 * trained if how.tuning == "lora" else 0)) / shards,
        moments=2 * kept * trained / shards,
        **(start if at_start else {"gradients": gradients}),
    )
    return max(memory, _loading(shape, how.weights, how.stored), key=lambda m: m.gib)


def _loading(shape: Shape, weights: str, stored: str) -> Memory:
    """Estimate the memory while weights are read: with the file's pages, if they are converted."""
    converted = weights == "bf16" and stored == "float32"
    wide = 2 if weights == "bf16" else 4
    return Memory(weights=wide * shape.weights, file=4 * shape.weights if converted else 0.0)


def activations(shape: Shape, how: Training) -> float:
    """Return the bytes that one layer saves for its backward pass."""
    kind = FAMILIES[shape.family]
    states, inner, scores = kind.states, kind.inner, SCORES
    if how.tuning == "lora":
        states, inner = states - SPARED_BY_LORA[0], inner - SPARED_BY_LORA[1]
    masks = 0.0
    if how.dropout:
        masks = MASKS * shape.hidden + shape.heads * how.length_tokens
    else:
        scores = SCORES_WITHOUT_DROPOUT
    number = BF16_BYTES if how.weights == "bf16" else 4.0
    if how.precision == "bf16":
        number = MIXED_BYTES
    numbers = states * shape.hidden + inner * shape.feed_forward
    numbers += scores * shape.heads * how.length_tokens
    kept = number * numbers + masks + _float32_bytes(shape, how)
    return how.rows * how.length_tokens * kept


def _float32_bytes(shape: Shape, how: Training) -> float:
    """Return the bytes a token that tensors add which are float32 although weights are bf16."""
    if how.weights != "bf16":
        return 0.0
    kind = FAMILIES[shape.family]
    more = 0.0
    if how.tuning == "lora":  # a float32 copy of its input for each matrix
        more += (4 * len(kind.adapted) - BF16_BYTES) * shape.hidden
    if kind.attends_in_float32:  # queries, keys and scores
        more += (4 - BF16_BYTES) * (2 * shape.hidden + shape.heads * how.length_tokens)
    return more


def adapter_weights(shape: Shape, how: Training) -> int:
    """Count the weights that LoRA adds."""
    width = sum(into + out for into, out in FAMILIES[shape.family].adapted)
    return shape.layers * how.lora_rank * width * shape.hidden


def scoring_memory(
    shape: Shape,
    precision: str,
    batch_tokens: int,
    length_tokens: int,
    stored: str = "float32",
) -> Memory:
    """Estimate the peak of scoring texts or choices.

    Args:
        shape: The model's sizes.
        precision: ``float32`` or ``bf16``.
        batch_tokens: Positions read at once.
        length_tokens: Tokens of the longest text.
        stored: Type of the weights in the model's file.
    """
    wide = 2 if precision == "bf16" else 4
    # One layer at a time: its feed-forward vectors thrice, or its attention, before the next.
    inner = 3 * wide * shape.feed_forward + 2 * wide * shape.hidden
    # GPT-Neo attends in float32 whatever the precision.
    score = 4 if shape.family == "gpt_neo" else wide
    scores = 3 * score * shape.heads * length_tokens
    states = 2 * wide * shape.hidden
    logits = (wide + 4 + 4 if wide == 2 else 8) * HEAD_ROWS * min(HEAD_TILE, shape.vocabulary)
    memory = Memory(
        weights=wide * shape.weights,
        activations=batch_tokens * (states + max(inner, scores)),
        logits=logits,
        cache=2 * wide * shape.layers * shape.hidden * batch_tokens,
    )
    return max(memory, _loading(shape, precision, stored), key=lambda m: m.gib)


def ways(how: Training) -> Iterator[tuple[str, Training]]:
    """Yield the ways to train that differ in memory, the cheapest last."""
    bf16 = {"weights": "bf16", "precision": "bf16"}
    lora = replace(how, tuning="lora")
    yield "full", replace(how, tuning="full")
    yield "full, recomputed", replace(how, tuning="full", gradient_checkpointing=True)
    yield (
        "full, recomputed, fsdp on 8",
        replace(how, tuning="full", gradient_checkpointing=True, devices=8, strategy="fsdp"),
    )
    yield "lora", lora
    yield "lora, recomputed", replace(lora, gradient_checkpointing=True)
    if how.predicted == 1.0:  # the weights of masked models stay float32
        yield "lora, recomputed, bf16 weights", replace(lora, gradient_checkpointing=True, **bf16)
