"""Gradients of single texts in the low-rank additions of a language model, as features.

Two texts with similar gradients teach a model similar things. A text's feature is the gradient
of its mean loss per predicted token in all LoRA matrices, times the square root of Adam's
preconditioner, projected at random and scaled to unit length.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from threading import Lock
from typing import Any, ClassVar

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from gotd.storage.seeds import derive_seed
from gotd.storage.shapes import MASKED_SHARE
from gotd.training.causal_models import is_causal, load_causal_lm, load_causal_tokenizer
from gotd.training.data import IGNORED
from gotd.training.loading import device_of
from gotd.training.lora import add_adapters
from gotd.training.masked_lm import MaskedLMSettings
from gotd.training.models import copy_model, load_masked_lm, load_tokenizer, masked_lm_head

WARM_UP = "warm_up.safetensors"
"""LoRA matrices after the warm-up, and Adam's second moments of their gradients."""
BETAS, EPSILON, RATE = (0.9, 0.999), 1e-8, 2e-4
"""Of Adam in the warm-up."""
BATCH_TEXTS = 16


class GradientEmbedder:
    """Features of texts.

    Args:
        folder: Model folder, with or without a warm-up.
        dimension: Width of the features.
        max_length_tokens: Longer texts are cut.
        seed: Seed of the first LoRA matrices, of masks and of the projection.
        device: ``auto``, ``cpu`` or ``cuda``.

    Raises:
        ValueError: If the model has no language-modelling head.
    """

    version: ClassVar[int] = 1

    def __init__(
        self,
        folder: Path,
        dimension: int,
        max_length_tokens: int,
        seed: int,
        device: str = "auto",
    ) -> None:
        self.dimension, self.max_length_tokens, self.seed = dimension, max_length_tokens, seed
        self.device = device_of(device)
        self._turn = Lock()
        self.causal = is_causal(folder)
        self.tokenizer: Any = (load_causal_tokenizer if self.causal else load_tokenizer)(folder)
        with torch.random.fork_rng():
            torch.manual_seed(derive_seed(seed, "lora"))
            if self.causal:
                self.network: Any = load_causal_lm(folder, training=False)
            else:
                self.network, fresh = load_masked_lm(folder)
                if fresh:
                    raise ValueError(f"{folder} has no language-modelling head, so it has no loss")
            settings = MaskedLMSettings(learning_rate=RATE, epochs=1, tuning="lora")
            add_adapters(self.network, settings)
        self.network.eval().to(self.device)
        self.weights = {
            name: weight for name, weight in self.network.named_parameters() if weight.requires_grad
        }
        self.scale = {name: torch.ones_like(weight) for name, weight in self.weights.items()}
        if (folder / WARM_UP).exists():
            found = load_file(folder / WARM_UP)
            for name, weight in self.weights.items():
                weight.data.copy_(found[name])
                moment = found[f"moment {name}"].to(self.device)
                self.scale[name] = (moment.sqrt() + EPSILON).rsqrt()
        self._buckets = {name: self._draw(name, w.numel()) for name, w in self.weights.items()}

    def _draw(self, name: str, size: int) -> tuple[Tensor, Tensor]:
        """Return the column and the sign of every number of a gradient."""
        random = np.random.default_rng(derive_seed(self.seed, f"project {name}"))
        columns = torch.from_numpy(random.integers(self.dimension, size=size))
        signs = torch.from_numpy(random.choice([-1.0, 1.0], size=size).astype(np.float32))
        return columns.to(self.device), signs.to(self.device)

    def embed(self, texts: Sequence[str]) -> np.ndarray:
        """Return float32 ``[len(texts), dimension]``; a text without a token is the zero row."""
        with self._turn:  # the hooks of two threads would collect each other's gradients
            return self._embed(texts)

    def _embed(self, texts: Sequence[str]) -> np.ndarray:
        rows = np.zeros((len(texts), self.dimension), dtype=np.float32)
        for which, gradients in self._gradients(texts):
            features = torch.zeros(len(which), self.dimension, device=self.device)
            for name, gradient in gradients.items():
                columns, signs = self._buckets[name]
                values = (gradient * self.scale[name]).flatten(1) * signs
                features.index_add_(1, columns, values)
            rows[which] = features.cpu().numpy()
        return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)

    def gradients(self, text: str) -> dict[str, np.ndarray]:
        """Return the gradient of a text's loss in every LoRA matrix, by its name."""
        ((_, found),) = self._gradients([text])
        return {name: gradient[0].cpu().numpy() for name, gradient in found.items()}

    def mean_loss(self, tokens: Tensor, mask: Tensor, labels: Tensor) -> Tensor:
        """Return the ``[n]`` mean losses of rows over the tokens whose label is not ignored."""
        hidden = self.network.base_model(input_ids=tokens, attention_mask=mask).last_hidden_state
        if self.causal:
            hidden, labels = hidden[:, :-1], labels[:, 1:]
        predicted = labels != IGNORED
        head: Any = (
            self.network.get_output_embeddings() if self.causal else masked_lm_head(self.network)
        )
        # Logits of tokens that are not predicted would be most of the work.
        logits = head(hidden[predicted]).float()
        losses = nn.functional.cross_entropy(logits, labels[predicted], reduction="none")
        owners = predicted.nonzero()[:, 0]
        sums = losses.new_zeros(len(labels)).index_add(0, owners, losses)
        return sums / predicted.sum(dim=1).clamp(min=1)

    def inputs(self, text: str) -> tuple[list[int], list[int]]:
        """Return the tokens of a text and the labels of those to predict, none for no token."""
        if self.causal:
            read = self.tokenizer(text, add_special_tokens=False)["input_ids"]
            row = [self.tokenizer.bos_token_id, *read][: self.max_length_tokens]
            return row, [IGNORED, *row[1:]]
        row = self.tokenizer(text, truncation=True, max_length=self.max_length_tokens)["input_ids"]
        special = set(self.tokenizer.all_special_ids)
        free = [place for place, token in enumerate(row) if token not in special]
        random = np.random.default_rng(derive_seed(self.seed, f"mask {text}"))
        count = max(1, round(MASKED_SHARE * len(free)))
        masked = set(random.permutation(free)[:count].tolist())
        labels = [token if place in masked else IGNORED for place, token in enumerate(row)]
        mask_id = self.tokenizer.mask_token_id
        return [mask_id if place in masked else t for place, t in enumerate(row)], labels

    def batches(self, texts: Sequence[str]) -> Iterator[tuple[list[int], Tensor, Tensor, Tensor]]:
        """Yield rows of similar length: their numbers; tokens, mask and labels on the device."""
        read = [self.inputs(text) for text in texts]
        order = [
            i for i, (_, labels) in enumerate(read) if any(label != IGNORED for label in labels)
        ]
        order.sort(key=lambda i: (len(read[i][0]), i))
        for start in range(0, len(order), BATCH_TEXTS):
            which = order[start : start + BATCH_TEXTS]
            width = max(len(read[i][0]) for i in which)
            tokens = torch.zeros(len(which), width, dtype=torch.long)
            mask, labels = torch.zeros_like(tokens), torch.full_like(tokens, IGNORED)
            for row, i in enumerate(which):
                length = len(read[i][0])
                tokens[row, :length] = torch.tensor(read[i][0])
                labels[row, :length] = torch.tensor(read[i][1])
                mask[row, :length] = 1
            yield which, tokens.to(self.device), mask.to(self.device), labels.to(self.device)

    def _gradients(self, texts: Sequence[str]) -> Iterator[tuple[list[int], dict[str, Tensor]]]:
        """Yield rows and their gradients ``[n, out, in]`` by matrix, one backward pass each batch.

        A matrix ``W`` that maps ``x`` to ``y`` has the gradient ``sum_t dL/dy_t x_t^T``, and the
        sum of all rows' losses has the same ``dL/dy`` in a row as this row's loss alone.
        """
        found: dict[str, Tensor] = {}

        def collect(name: str, x: Tensor, gradient: Tensor) -> None:
            found[name] = torch.einsum("bto,bti->boi", gradient, x)

        def watch(name: str, module: nn.Module, inputs: Any, output: Tensor) -> None:
            output.register_hook(partial(collect, name, inputs[0].detach()))

        layers = [(name.removesuffix(".weight"), name) for name in self.weights]
        hooks = [
            self.network.get_submodule(layer).register_forward_hook(partial(watch, name))
            for layer, name in layers
        ]
        try:
            for which, *batch in self.batches(texts):
                found.clear()
                loss = self.mean_loss(*batch).sum()
                torch.autograd.grad(loss, list(self.weights.values()))
                yield which, dict(found)
        finally:
            for hook in hooks:
                hook.remove()


def warm_up(base: Path, texts: Sequence[str], embedder: GradientEmbedder, out: Path) -> None:
    """Train the LoRA matrices on texts for a pass by Adam, and write model and moments.

    Args:
        base: Folder of the base model.
        texts: What to train on, in order.
        embedder: Made of ``base``; its matrices are trained.
        out: Folder to write.
    """
    optimiser = torch.optim.Adam(embedder.weights.values(), lr=RATE, betas=BETAS, eps=EPSILON)
    embedder.network.train()
    for start in range(0, len(texts), BATCH_TEXTS):
        for _, *batch in embedder.batches(texts[start : start + BATCH_TEXTS]):
            optimiser.zero_grad()
            embedder.mean_loss(*batch).mean().backward()
            optimiser.step()
    written = {}
    for name, weight in embedder.weights.items():
        state = optimiser.state[weight]
        correction = 1.0 - BETAS[1] ** float(state["step"])
        written |= {name: weight.detach(), f"moment {name}": state["exp_avg_sq"] / correction}
    out.mkdir(parents=True, exist_ok=True)
    copy_model(base, None, out)
    save_file({name: tensor.cpu().contiguous() for name, tensor in written.items()}, out / WARM_UP)
