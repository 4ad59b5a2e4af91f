"""Embedders: texts to rows of a matrix, by a Hugging Face encoder.

The space matters more than epsilon or the selector: length and format of short task texts
and long passages can hide the domain signal. So both sides go through one function, in one
precision. The pooling of the published code (a mean over padding too) has a name of its own.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Protocol

import numpy as np

from gotd.embedding.tokens import TokenIds, Tokeniser
from gotd.storage.checks import check_choices, check_device_name

Pooling = Literal["mean_masked", "mean_weighted", "mean_all_positions", "cls", "token_mean"]
Precision = Literal["float32", "bf16"]

CPU_BATCH_TOKENS = 4096
"""Positions per batch on a CPU at most: a batch four times as large takes a tenth longer."""


class Embedder(Protocol):
    """A map from texts to rows of a float32 matrix."""

    version: ClassVar[int]

    def embed(self, texts: Sequence[str]) -> np.ndarray:
        """Return float32 ``[len(texts), width]``, row i for text i."""
        ...


@dataclass
class TransformerEmbedder:
    """The pooled hidden states, or input embeddings, of a Hugging Face encoder.

    Texts are sorted by length within a call and padded to the longest of their
    batch, except for ``mean_all_positions``, which needs one length for all.

    Args:
        model: Folder, or Hub name, of the encoder with its tokenizer.
        pooling: ``mean_masked`` (padding left out), ``mean_weighted`` (the same, with the
            position of each token, from 1, as its weight), ``mean_all_positions`` (padding in
            the mean, as published: every text is padded to ``max_length_tokens``),
            ``cls`` (first position) or ``token_mean`` (mean of the input embeddings of
            the text's own tokens; no layer is run).
        max_length_tokens: Longer texts are cut here, or where the model's positions end.
        batch_tokens: Positions per batch, padding included, and fewer on a CPU; bounds
            memory.
        normalise: Scale each row to unit Euclidean length.
        precision: ``float32`` or ``bf16`` weights and activations; the pooled rows
            are float32 in either case.
        device: ``auto``, ``cpu`` or ``cuda``.

    Raises:
        OSError: If the model cannot be loaded.
        ValueError: If a choice is unknown, a length is below 1, or the model lacks
            weights of its encoder.
    """

    version: ClassVar[int] = 1

    model: str
    pooling: Pooling
    max_length_tokens: int = 256
    batch_tokens: int = 16_384
    normalise: bool = False
    precision: Precision = "float32"
    device: str = "auto"

    def __post_init__(self) -> None:
        check_choices(self, "embedder ")
        check_sizes(max_length_tokens=self.max_length_tokens, batch_tokens=self.batch_tokens)
        import torch
        from transformers import AutoModel

        from gotd.training.layers import pack_layers
        from gotd.training.loading import device_of, load_any_tokenizer, load_network

        self.device = device_of(self.device)
        if self.device == "cpu":
            self.batch_tokens = min(self.batch_tokens, CPU_BATCH_TOKENS)
        tokenizer = load_any_tokenizer(self.model)
        network, _ = load_network(
            AutoModel,
            self.model,
            ("pooler.",),  # which is not read; any other absent weight would be random
            dtype=torch.bfloat16 if self.precision == "bf16" else torch.float32,
            attn_implementation=None,  # the library's own choice
        )
        if self.pooling != "token_mean":  # which runs no layer, so has no positions to run out of
            self.max_length_tokens = int(min(self.max_length_tokens, _positions(network)))
        self._pad_id: int = tokenizer.pad_token_id or 0
        special = self.pooling != "token_mean"
        self.tokeniser = Tokeniser(tokenizer, self.max_length_tokens, special)
        self._network = network.eval().requires_grad_(False).to(self.device)
        pack_layers(self._network)

    @property
    def dimension(self) -> int:
        """Return the width of the hidden states, or of the input embeddings for ``token_mean``."""
        if self.pooling == "token_mean":
            return int(self._network.get_input_embeddings().embedding_dim)
        return int(self._network.config.hidden_size)

    def embed(self, texts: Sequence[str]) -> np.ndarray:
        """Return float32 ``[len(texts), dimension]``, row i for text i."""
        return self.embed_tokens(self.tokeniser(texts))

    def embed_tokens(self, tokens: TokenIds) -> np.ndarray:
        """Return float32 ``[len(tokens), dimension]``, row i for text i of `tokeniser`."""
        import torch

        rows = np.zeros((len(tokens), self.dimension), dtype=np.float32)
        batches = list(self._batches(tokens.lengths.tolist()))
        with torch.inference_mode():
            # Copied back when all are done: a copy waits for the device, which would then idle.
            pooled = [self._pool(tokens, batch) for batch in batches]
            for batch, of_batch in zip(batches, pooled, strict=True):
                rows[batch] = of_batch.cpu().numpy()
        if self.normalise:
            rows /= np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
        return rows

    def _batches(self, lengths: Sequence[int]) -> Iterator[list[int]]:
        """Yield rows of similar length, at most ``batch_tokens`` positions together."""
        batch: list[int] = []
        for i in sorted(range(len(lengths)), key=lambda i: (lengths[i], i)):
            if batch and (len(batch) + 1) * self._padded(lengths[i]) > self.batch_tokens:
                yield batch
                batch = []
            batch.append(i)
        if batch:
            yield batch

    def _padded(self, longest: int) -> int:
        """Return the positions to which a batch is padded."""
        return self.max_length_tokens if self.pooling == "mean_all_positions" else max(longest, 1)

    def _pool(self, tokens: TokenIds, batch: Sequence[int]) -> Any:
        """Return a tensor ``[len(batch), dimension]`` on the device."""
        width = self._padded(int(tokens.lengths[batch].max()))
        ids, mask = map(self._on_device, tokens.padded(batch, width, self._pad_id))
        if self.pooling == "token_mean":
            hidden = self._network.get_input_embeddings()(ids).float()
        else:
            hidden = self._network(input_ids=ids, attention_mask=mask).last_hidden_state.float()
        if self.pooling == "cls":
            pooled = hidden[:, 0].clone()  # a view would keep all positions in memory
        elif self.pooling == "mean_all_positions":
            # Deviation D2: the published code takes the mean over padding as well.
            pooled = hidden.mean(dim=1)
        else:
            weight = mask.unsqueeze(-1).float()
            if self.pooling == "mean_weighted":
                weight = weight.cumsum(dim=1) * weight
            pooled = (hidden * weight).sum(dim=1) / weight.sum(dim=1).clamp(min=1.0)
        return pooled

    def _on_device(self, array: np.ndarray) -> Any:
        import torch

        tensor = torch.from_numpy(array)
        if self.device == "cpu":
            return tensor
        # From pinned memory, so that the next batch is padded while the device runs this one.
        return tensor.pin_memory().to(self.device, non_blocking=True)


def check_sizes(**sizes: int) -> None:
    """Raise if a size is below 1."""
    for name, value in sizes.items():
        if value < 1:
            raise ValueError(f"embedder {name} must be at least 1, not {value}")


def _positions(network: Any) -> float:
    """Count the positions a model knows; RoBERTa's begin after its padding index."""
    table = getattr(getattr(network, "embeddings", None), "position_embeddings", None)
    if table is None:  # rotary or relative positions have no table
        return float("inf")
    first = 0 if table.padding_idx is None else table.padding_idx + 1
    return table.num_embeddings - first


def check_device(device: str) -> None:
    """Validate the name of a device, and that a GPU that is named is here.

    Raises:
        ValueError: If it is neither ``auto`` nor ``cpu`` nor ``cuda``, with a number or
            without, or there is no such GPU.
    """
    check_device_name(device)
    if not device.startswith("cuda"):
        return
    import torch

    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if int(device.partition(":")[2] or 0) >= gpus:
        raise ValueError(
            f"there is no device {device}: torch {torch.__version__} sees {gpus} GPUs here; "
            "leave the device at auto, or install a torch with CUDA and its driver"
        )
