"""Generated worlds that differ in their number of rare domains and in the target's shares."""

from __future__ import annotations

from dataclasses import dataclass, field

from gotd.data.microworld.world import Microworld

KINDS = (
    (0.5, 0.5),
    (0.5, 0.25, 0.25),
    (0.5, 1 / 6, 1 / 6, 1 / 6),
    (0.2, 0.6, 0.2),
)
"""Target shares of each kind of world: of the common domain, then of every rare one."""


@dataclass(frozen=True)
class VariedMicroworld(Microworld):
    """World of one of four kinds, which its seed determines.

    The kind is the remainder of the seed by four: one, two or three rare domains in a target that
    is half common, or two rare domains in an imbalanced target (``KINDS``). All rare domains
    together hold ``rare_share`` of the documents, in equal parts. So a table over seeds does not
    depend on one number of gaps or on one mixture. Worlds of the first three kinds are
    those of `Microworld` with as many rare domains.
    """

    rare_domains: int = field(default=1, init=False)
    """Under-covered domains, by the kind of the world."""
    target_shares: tuple[float, ...] = field(default=(), init=False)
    """Shares of the target: ``common_0``, then each rare domain."""

    def __post_init__(self) -> None:
        """Raise if the world cannot be built."""
        self._check_integers({"seed": 0})
        shares = KINDS[self.seed % len(KINDS)]
        object.__setattr__(self, "target_shares", shares)
        object.__setattr__(self, "rare_domains", len(shares) - 1)
        super().__post_init__()

    def _rare_documents(self, total: int) -> int:
        """Return the documents of each rare domain."""
        return round(total * self.rare_share)

    def _target_counts(self, rows: int) -> list[int]:
        """Divide rows by the shares, what rounding leaves to the common domain."""
        common, *rare = self.target_shares
        if common == 0.5:
            return super()._target_counts(rows)
        counts = [round(rows * share) for share in rare]
        return [rows - sum(counts), *counts]
