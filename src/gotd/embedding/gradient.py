"""The gradient space: texts by what they would teach the model that will be trained."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from gotd.embedding.embedders import Embedder, check_device, check_sizes
from gotd.storage import keys
from gotd.storage.checks import check_at_least
from gotd.storage.shapes import BERT_BASE, MASKED_SHARE, Shape
from gotd.storage.work import Work, reading_work

if TYPE_CHECKING:
    from gotd.training.gradients import GradientEmbedder


@dataclass(frozen=True)
class GradientEncoder:
    """A specification of the space; see `gotd.embedding.encoders.Encoder`.

    The gradient is that of the mean loss per predicted token in LoRA matrices. Before, they
    are trained on a sample of the pool for ``warm_up_rows`` texts. Adam divides a gradient by
    the square root of its second moment ``v``. Here both sides are divided by the square root
    of that, so that their inner product is the published one without momentum, and target and
    candidates go through one encoder. A text's random masks are a hash of the text.

    Args:
        dimension: Width of the matrix, that of the random projection.
        warm_up_rows: Texts of the pool to train on first; 0: gradients of the base itself.
        max_length_tokens: Longer texts are cut here.
        seed: Seed of the first LoRA matrices, of masks and of the projection.
        device: ``auto``, ``cpu`` or ``cuda``; not part of any key.
        name: Short name for tables and folders; not part of any key.

    Source: Xia et al. (2024), LESS: selecting influential data for targeted instruction
    tuning; Weinberger et al. (2009) for the sparse projection.
    """

    key_name: ClassVar[str] = "GradientEncoder"
    version: ClassVar[int] = 2  # 2: only predicted tokens get logits

    dimension: int = 1024
    warm_up_rows: int = 1000
    max_length_tokens: int = 128
    seed: int = 0
    device: str = "auto"
    name: str = "gradient"

    def __post_init__(self) -> None:
        check_sizes(dimension=self.dimension, max_length_tokens=self.max_length_tokens)
        check_at_least(self, 0, "warm_up_rows", prefix="embedder ")
        check_device(self.device)

    @property
    def model_from_step(self) -> Literal["base", "warmed"]:
        """Return ``warmed``, or ``base`` without a warm-up."""
        return "warmed" if self.warm_up_rows else "base"

    def identity(self) -> dict[str, Any]:
        """Return the fields that decide the matrix."""
        return {k: v for k, v in keys.identity(self).items() if k != "name"}

    def width(self, folder: Path | None = None) -> int:
        """Return the width of the matrix."""
        return self.dimension

    def work(self, rows: float, tokens: float, model: Shape | None) -> Work:
        """Return the work of a pass forward and back; see `Encoder.work`."""
        read = min(tokens, self.max_length_tokens)
        shape = model or BERT_BASE
        once = reading_work(shape, rows, read, logits=MASKED_SHARE if shape.is_masked else 1.0)
        return replace(once, flops=2 * once.flops, width=self.dimension, rate=f"{once.rate} back")

    def load(self, folder: Path | None = None) -> Embedder:
        """Load the model of the step that `model_from_step` names."""
        assert folder is not None, "the encoder reads the model of a step"
        return self._read(folder)

    def warm_up(self, base: Path, texts: Sequence[str], folder: Path) -> None:
        """Train on texts and write what `load` reads.

        Args:
            base: Folder of the base model.
            texts: Texts of the pool, in order.
            folder: Receives the model and the moments.
        """
        from gotd.training.gradients import warm_up

        warm_up(base, texts, self._read(base), folder)

    def _read(self, folder: Path) -> GradientEmbedder:
        from gotd.training.gradients import GradientEmbedder

        return GradientEmbedder(
            folder, self.dimension, self.max_length_tokens, self.seed, self.device
        )
