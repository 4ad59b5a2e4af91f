"""A known mix of domains from the passages of a folder: the paper's Figure 3 with real text.

Base models are pre-trained on general domains and a small share of each rare domain, and the
pool has the same shares. So it is known which half of a target the base has hardly seen.
Pre-training text depends on the base seed alone, so one base serves every draw.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import pyarrow as pa

from gotd.data.folder import Folder
from gotd.data.passages import DrawnPart, Files, Passages, Role, read_domains, rows_of
from gotd.data.sizes import CHARS_PER_TOKEN, PASSAGE_TOKENS
from gotd.storage.checks import check_at_least
from gotd.storage.files import known_checksum
from gotd.storage.printing import listed

HELD_OUT_SHARE = 0.1
"""Held-out text for perplexity, as a share of the characters of the pre-training text."""
MOST_RARE_SHARE = 0.02
"""A base that saw more of a domain does not lack it."""
VERSION = 1
"""Raise it when the same files give other rows."""


@dataclass(frozen=True)
class Mix:
    """Pre-training text and pools of a known mix, and texts of single domains as targets.

    A rare domain has ``rare_share`` of the characters of the pre-training text and of the
    pool. The general domains share the rest equally.

    Args:
        path: The folder, in the layout of `gotd.data.folder`; not part of the identity.
        general: Domains that the base knows.
        rare: Domains that it hardly knows.
        rare_share: Share of each rare domain, 0 to .02.
        pretraining_chars: Characters of the pre-training text.
        pool_chars: Characters of the pool.
        target_chars: Characters of one domain's texts in a target.
        evaluation_texts: Held-out texts of one domain to evaluate on.
        seed: The draw of pool, target and evaluation texts.
        base_seed: The draw of the pre-training text.

    Raises:
        ValueError: If a value is out of range, or a domain is named twice.

    Source: GOT-D (ICLR 2024), Figure 3, for the idea.
    """

    name: ClassVar[str] = "mix"
    generated: ClassVar[bool] = False
    candidate_options: ClassVar[frozenset[str]] = frozenset()

    path: str
    general: tuple[str, ...] = (
        *("books", "encyclopedia", "forum", "movie_reviews"),
        *("news", "speeches", "tech_docs"),
    )
    rare: tuple[str, ...] = ("biomedical", "cs_papers", "math")
    rare_share: float = 0.01
    pretraining_chars: int = 9_000_000
    pool_chars: int = 30_000_000
    target_chars: int = 125_000
    evaluation_texts: int = 500
    seed: int = 0
    base_seed: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "general", tuple(self.general))
        object.__setattr__(self, "rare", tuple(self.rare))
        counts = ("pretraining_chars", "pool_chars", "target_chars", "evaluation_texts")
        check_at_least(self, 1, *counts, prefix="source ")
        if not 0 <= self.rare_share <= MOST_RARE_SHARE:
            raise ValueError(
                f"source rare_share must lie in [0, {MOST_RARE_SHARE}], not {self.rare_share}"
            )
        for name in ("general", "rare"):
            if not getattr(self, name):
                raise ValueError(f"source {name} is empty; name at least one domain")
        for domain in self.domains:
            if self.domains.count(domain) > 1:
                raise ValueError(f"source general and rare name {domain!r} twice; name it once")

    @property
    def domains(self) -> tuple[str, ...]:
        """Return the domains of the mix, general ones first."""
        return (*self.general, *self.rare)

    @property
    def under_covered(self) -> list[str]:
        """Return the rare domains."""
        return list(self.rare)

    @property
    def shares(self) -> dict[str, float]:
        """Return the share of each domain in the pre-training text and the pool."""
        of_general = (1 - self.rare_share * len(self.rare)) / len(self.general)
        return dict.fromkeys(self.general, of_general) | dict.fromkeys(self.rare, self.rare_share)

    def identity(self) -> dict[str, Any]:
        """Return what determines the rows of each role, and how much two draws overlap.

        Returns:
            ``pretraining``, ``candidates`` and ``target``: the files that hold the mix, and
            parameters. ``tasks``: the files of each labelled task. ``overlap`` is in no key:
            the share of a draw that another draw is expected to have too, by domain, of the
            pool and of target and evaluation texts together.

        Raises:
            FileNotFoundError: If the folder, its candidates or a domain are not there.
            ValueError: If a domain has too little text for its share.
        """
        self.pretraining(), self.candidates()  # raises now, not after the first step
        files = self._checksums(self.domains)
        mix = {"files": files, "shares": self.shares}
        sizes = {"chars": self.target_chars, "evaluation_texts": self.evaluation_texts}
        return {
            "name": self.name,
            "version": VERSION,
            "pretraining": {**mix, "chars": self.pretraining_chars, "seed": self.base_seed},
            "candidates": {**mix, "chars": self.pool_chars, "seed": self.seed},
            "target": {"files": files, **sizes, "seed": self.seed},
            "tasks": self._folder_identity["tasks"],
            "overlap": {"pool": self._pool_overlap(), "target": self._target_overlap()},
        }

    def tasks(self) -> list[str]:
        """List the labelled tasks of the folder."""
        return Folder(self.path).tasks()

    def split(self, task: str, split: str) -> pa.Table:
        """Read one split of a labelled task of the folder; see `Folder.split`."""
        return Folder(self.path).split(task, split)

    def count(self, role: str) -> int | None:
        """Return the rows of a role (see `Source.count`)."""
        if "/" in role:
            return Folder(self.path).count(role)
        if role in ("target", "evaluation"):
            texts = round(self.target_chars / (PASSAGE_TOKENS * CHARS_PER_TOKEN))
            return self.evaluation_texts if role == "evaluation" else max(1, texts)
        try:
            parts = self.pretraining() if role == "pretraining" else self.candidates()
        except (OSError, ValueError):
            return None
        return sum(len(part.ids) for part in parts)

    def candidates(self) -> list[DrawnPart]:
        """Return the pool of this draw, a part for each domain.

        Raises:
            ValueError: If a domain has too little text for its share.
        """
        return self._parts("pool", self.seed, self.pool_chars, "pool_chars")

    def pretraining(self) -> list[DrawnPart]:
        """Return the pre-training text, the same for every draw, a part for each domain.

        Raises:
            ValueError: If a domain has too little text for its share.
        """
        chars, field = self.pretraining_chars, "pretraining_chars"
        return self._parts("pretraining", self.base_seed, chars, field)

    def held_out(self) -> list[DrawnPart]:
        """Return text of the mix that no base is trained on, the same for every draw.

        Raises:
            ValueError: If a domain has too little text for its share.
        """
        chars = round(HELD_OUT_SHARE * self.pretraining_chars)
        return self._parts("target", self.base_seed, chars, "pretraining_chars")

    def texts_of(self, domain: str, role: str) -> pa.Table:
        """Return texts of one domain that are in no pool and in no pre-training text.

        Args:
            domain: A domain of the mix.
            role: ``target`` or ``evaluation``; the two have no text in common.

        Returns:
            ``id``, ``text`` and ``domain``.

        Raises:
            FileNotFoundError: If the mix or the folder has no such domain; lists what it has.
            ValueError: If the domain has too little text.
        """
        if domain not in self.domains:
            raise FileNotFoundError(
                f"the mix has no domain {domain!r}; it has {listed(self.domains, domain)}: add it "
                "to source.rare or source.general, or name another domain in the task"
            )
        passages, count = self._passages(domain, "target"), self.evaluation_texts
        order = passages.shuffled(self.seed)
        left = int(passages.chars[order[count:]].sum())
        if left < self.target_chars:
            raise ValueError(
                f"the domain {domain!r} has {left:,} characters for targets beside "
                f"{count:,} evaluation texts, fewer than source.target_chars "
                f"({self.target_chars:,}); lower one of them or add passages to candidates/"
            )
        ids = passages.ids.take(pa.array(order[:count]))
        if role == "target":
            ids = passages.first(self.seed, self.target_chars, count)
        return pa.concat_tables(rows_of(passages.files, ids))

    def _parts(self, role: Role, seed: int, chars: int, field: str) -> list[DrawnPart]:
        parts = []
        for domain, share in self.shares.items():
            passages, needed = self._passages(domain, role), round(share * chars)
            if passages.total_chars < needed:
                raise ValueError(
                    f"the domain {domain!r} has {passages.total_chars:,} characters for the role "
                    f"{role}, fewer than the {needed:,} of its share {share:.3g}; lower "
                    f"source.{field} or add passages of it to candidates/"
                )
            content = {"domain": domain, "role": role, "chars": needed, "seed": seed}
            rows = content | {"version": VERSION, "files": self._checksums([domain])}
            parts += [DrawnPart(passages, seed, needed, rows)] if needed else []
        return parts

    def _pool_overlap(self) -> dict[str, float]:
        shares = {p.label: p.chars / p.passages.total_chars for p in self.candidates()}
        return {domain: round(share, 4) for domain, share in shares.items()}

    def _target_overlap(self) -> dict[str, float]:
        overlap = {}
        for domain in self.domains:
            passages = self._passages(domain, "target")
            evaluated = self.evaluation_texts / max(1, len(passages.ids))
            share = evaluated + self.target_chars / passages.total_chars
            overlap[domain] = round(min(1.0, share), 4)
        return overlap

    def _passages(self, domain: str, role: Role) -> Passages:
        by_domain = read_domains(self._files)
        if domain not in by_domain:
            raise FileNotFoundError(
                f"{Path(self.path) / 'candidates'} has no passages of the domain {domain!r}; it "
                f"has {listed(by_domain, domain)}: add a file with them, or leave the domain out "
                "of source.general and source.rare"
            )
        return by_domain[domain][role]

    def _checksums(self, domains: Sequence[str]) -> dict[str, str]:
        """Return the checksums of the files that hold the domains, by name."""
        held = {str(path) for domain in domains for path in self._passages(domain, "pool").files}
        return {Path(path).name: sum_ for path, sum_ in self._files if path in held}

    @cached_property
    def _files(self) -> Files:
        folder = Path(self.path).expanduser() / "candidates"
        names = self._folder_identity["candidates"]["files"]  # raises if there are none
        return tuple((str(folder / name), known_checksum(folder / name)) for name in names)

    @cached_property
    def _folder_identity(self) -> dict[str, Any]:
        return Folder(self.path).identity()
