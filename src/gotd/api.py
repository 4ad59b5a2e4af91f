"""Selection from Python: ``GOTD(epsilon=0.05).fit(target, candidates).select(budget=50_000)``.

A thin interface to `gotd.pipeline.select`, which ``gotd select`` uses too. The selector
itself is `gotd.selectors.got_d.GotD`.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from numbers import Integral, Real
from pathlib import Path
from typing import Any, Literal, Self

import pyarrow as pa

from gotd.data.chunking import Unit
from gotd.data.columns import Columns, both_columns
from gotd.data.hub.stream import HUB_RECORD
from gotd.data.inputs import Part, check_role, named_parts, table_parts
from gotd.data.row_shapes import Role
from gotd.embedding.encoders import named_encoder
from gotd.engine.local import Engine, LocalEngine
from gotd.pipeline.amounts import Amount, parse_share, prepare
from gotd.pipeline.map import map_of
from gotd.pipeline.replay import Replay, replay_columns
from gotd.pipeline.request import Request
from gotd.pipeline.select import Prepared
from gotd.pipeline.selection import Selection
from gotd.pipeline.steps.left_out import LeaveOut
from gotd.pipeline.weights import WeightedPool
from gotd.pipeline.written import WrittenRows, describe, file_suffix
from gotd.selectors.bounds import Bounds
from gotd.selectors.registry import build_selector
from gotd.storage.artifacts import Store
from gotd.storage.files import atomic_write


class GOTD:
    """Selection of the candidates that serve a target.

    Args:
        epsilon: Regularisation of the transport, in mean costs (0.05); methods without
            transport do not look at it.
        method: Name of the method, as in ``gotd select --method``.
        encoder: ``tfidf_svd``, ``minilm``, or a model's name or folder.
        seed: Seed of what is random.
        unit: ``whole``: rows are chosen as they are; ``fixed``: pieces of
            ``length_chars``.
        length_chars: Length of a ``fixed`` piece, and what the encoder reads of a row.
        min_chars: Least characters of a candidate; shorter ones are left out and counted, or
            with ``fixed`` joined with the next one. 0: any.
        settings: More fields of the method, such as ``{"whiten": True}``.
        engine: Maps over shards: this machine, or a `gotd.engine.ray.RayEngine`.
        store: Folder that keeps what was read, embedded and scored; a temporary one
            that goes with this object when ``None``.
        device: ``auto``, ``cpu`` or ``cuda``: of the encoder and the method. A language model
            that a method reads is on the GPU where there is one.
        model: Name or folder of the language model that will be trained, for a method that
            reads it.

    Raises:
        TypeError: If ``seed``, ``length_chars`` or ``min_chars`` is no whole number,
            ``epsilon`` no number, or ``method`` or ``encoder`` no string.
        ValueError: If there is no such method, encoder, device or setting, or ``settings``
            gives ``epsilon`` once more.
    """

    def __init__(
        self,
        epsilon: float | None = None,
        *,
        method: str = "got_d",
        encoder: str = "tfidf_svd",
        seed: int = 0,
        unit: Unit = "whole",
        length_chars: int = 1000,
        min_chars: int = 0,
        settings: Mapping[str, Any] | None = None,
        engine: Engine | None = None,
        store: str | Path | None = None,
        device: str = "auto",
        model: str | None = None,
    ) -> None:
        if isinstance(epsilon, bool) or not isinstance(epsilon, Real | None):
            raise TypeError(f"epsilon must be a number, not {epsilon!r}")
        _check(str, method=method, encoder=encoder)
        _check(str | None, model=model)
        given = dict(settings or {})
        if epsilon is not None and method.startswith("got_d"):
            if "epsilon" in given:
                raise ValueError("epsilon is given twice: drop it, or the one in settings")
            given["epsilon"] = float(epsilon)
        self._method, self._name = build_selector(method, given, device), method
        self._encoder, self._model = named_encoder(encoder, device), model
        self._seed = _integer("seed", seed)
        self._chunks: dict[str, Any] = {
            "unit": unit,
            "length_chars": _integer("length_chars", length_chars),
            "min_chars": _integer("min_chars", min_chars),
        }
        self._engine = engine or LocalEngine()
        self._temporary = tempfile.TemporaryDirectory(prefix="gotd-") if store is None else None
        temporary = self._temporary
        self._store = Store(
            temporary.name if temporary else str(store),
            temporary=temporary is not None,
            map_files=self._engine.map,
        )
        self._request: Request | None = None

    # long: two thirds of it state and document the arguments
    def fit(
        self,
        target: Any,
        candidates: Any,
        *,
        text_column: str = "text",
        target_text_column: str | None = None,
        id_column: str | None = None,
        domain_column: str | None = None,
        format: str | None = None,
        target_format: str | None = None,
        template: str | None = None,
        target_template: str | None = None,
        role: Role = "all",
        where: str | None = None,
        exclude: Any = None,
        dedup: Literal["exact", "near", "off"] = "exact",
    ) -> Self:
        """Read, embed and score the candidates.

        Methods that make lists instead of scores wait for the budget.

        Args:
            target: Texts (a list, an array or a `pandas.Series`), a path or ``hub:`` name (or
                several), a `pyarrow.Table`, a `pandas.DataFrame` or a `datasets.Dataset`. A
                list of strings is texts; give paths as `pathlib.Path`, or one path as a string.
            candidates: The same.
            text_column: Column of the text; several with commas are joined.
            target_text_column: The target's; the same when ``None``.
            id_column: The candidates' column of unique ids; ``id``, or else numbers, when
                ``None``. A target is numbered unless it has ``id``.
            domain_column: The candidates' domain; ``domain``, or else the file's name.
            format: Shape of the rows, such as ``messages``; found in the first rows when ``None``.
            target_format: The target's; the same when no setting of the target is given.
            template: Text with names of columns in braces, instead of a shape.
            target_template: The target's.
            role: ``assistant`` or ``user``: only their turns are compared, of both sides.
            where: Condition on the candidates' columns, such as ``"lang == 'en'"``.
            exclude: Test sets, given as the target is; 13 words in a row shared with one exclude.
            dedup: Of candidates with the same text (``exact``, after NFKC, in lower case and
                with single blanks), or nearly the same (``near``), only the first competes.

        Raises:
            TypeError: If what was given is none of these, or a column's name is no string;
                names the row of a text that is no string.
            ValueError: If rows cannot be read, a list of strings holds names of files alone, or a
                solve misses its tolerance.
            FileNotFoundError: If a file, data set or encoder is not there.
        """
        _check(str, text_column=text_column, role=role)
        _check(str | None, target_text_column=target_text_column, template=template)
        _check(str | None, id_column=id_column, domain_column=domain_column, format=format)
        _check(str | None, target_format=target_format, target_template=target_template)
        _check(str | None, where=where)
        columns, target_columns = both_columns(
            text_column,
            target_text_column,
            id_column=id_column,
            domain_column=domain_column,
            format=format,
            target_format=target_format,
            template=template,
            target_template=target_template,
            role=role,
        )
        excluded = [] if exclude is None else self._parts(exclude, "exclude", target_columns)
        leave_out = LeaveOut(where, excluded, dedup)
        self._request = self._make_request(target, candidates, columns, target_columns, leave_out)
        if callable(getattr(self._method, "scores", None)):
            Prepared(self._request, 1, self._store, self._engine)
        return self

    def select(
        self,
        budget: int | str | None = None,
        *,
        tokens: int | None = None,
        tokenizer: str = "minilm",
        max_per_domain: int | None = None,
        min_per_domain: int | None = None,
        mix: Mapping[str, float] | None = None,
        explain: bool = False,
        replay: Any = None,
        replay_share: float | None = None,
    ) -> Selection:
        """Take the best candidates; a smaller budget is a prefix of a larger.

        Args:
            budget: Rows to take, or a share of the pool such as ``"5%"``.
            tokens: Tokens to take, instead of a budget: rows until they reach it.
            tokenizer: Counts tokens: ``minilm``, or folder or Hub name of a model.
            max_per_domain: Most rows of a domain; ``None``: any.
            min_per_domain: Fewest rows of a domain, as far as it has so many; ``None``: any.
            mix: Share of the selection by domain, such as ``{"law": 0.3}``; the others have the
                rest.
            explain: Add to each row which target it serves.
            replay: General rows to mix in, given as the candidates are.
            replay_share: Their share of the rows of the selection, or of its tokens.

        Raises:
            RuntimeError: If nothing was fitted.
            TypeError: If the budget is no whole number and no share, or both or neither of
                ``budget`` and ``tokens`` are given.
            ValueError: If the budget is below 1 or larger than the pool.
            FileNotFoundError: If the tokenizer is not there.
        """
        if self._request is None:
            raise RuntimeError("nothing is fitted yet; call fit(target, candidates) first")
        amount = _amount(budget, tokens, tokenizer)
        bounds = {"max_per_domain": max_per_domain, "min_per_domain": min_per_domain}
        bounds = {name: _integer(name, n) for name, n in bounds.items() if n is not None}
        limits = Bounds(**bounds, mix=dict(mix or {}))
        mixed = self._replay(replay, replay_share, self._request.columns)
        request = replace(self._request, replay=mixed, bounds=limits)
        prepared, budgets = prepare(request, [amount], self._store, self._engine)
        (budget,) = budgets.rows
        selected = prepared.select(budget, explain=explain)
        with tempfile.TemporaryDirectory(prefix="gotd-") as folder:
            rows = WrittenRows(prepared, budgets, Path(folder), prefixed=False)
            table = pa.concat_tables([block.table for block in rows.blocks(selected)])
            rows.close()
        summary = selected.summary(self._seed) | budgets.summary(budget)
        manifest = describe(prepared, "gotd.GOTD") | {"budgets_stated": budgets.stated}
        removed = pa.concat_tables(prepared.removed())
        return Selection(table, summary, manifest, removed, map_of(prepared, budget))

    def write_weights(self, path: str | Path) -> dict[str, Any]:
        """Write how often to draw each candidate, with all its columns.

        Args:
            path: File to write or replace: ``.jsonl``, ``.jsonl.gz``, ``.csv`` or ``.parquet``.

        Returns:
            What the weights mean and how they vary (`gotd.pipeline.weights.WeightedPool.summary`).

        Raises:
            RuntimeError: If nothing was fitted.
            ValueError: If the method makes a list, or the name has another suffix.
        """
        if self._request is None:
            raise RuntimeError("nothing is fitted yet; call fit(target, candidates) first")
        suffix = file_suffix(Path(path), "weights")
        pool = WeightedPool(Prepared(self._request, 1, self._store, self._engine))
        with atomic_write(Path(path)) as part:
            pool.write(part, suffix)
        return pool.summary()

    def _replay(self, given: Any, share: float | None, columns: Columns) -> Replay | None:
        if given is None and share is None:
            return None
        if given is None or isinstance(share, bool) or not isinstance(share, Real):
            raise TypeError("replay and replay_share, a number such as 0.2, belong together")
        columns = replay_columns(columns)
        return Replay(self._parts(given, "replay", columns), float(share), columns)

    def _make_request(
        self,
        target: Any,
        candidates: Any,
        columns: Columns,
        target_columns: Columns,
        leave_out: LeaveOut,
    ) -> Request:
        target_parts = self._parts(target, "target", target_columns)
        parts = self._parts(candidates, "candidates", columns)
        check_role(columns.role, [*target_parts, *parts])
        return Request(
            target=target_parts,
            candidates=parts,
            method=self._method,
            method_name=self._name,
            encoder=self._encoder,
            target_columns=target_columns,
            columns=columns,
            seed=self._seed,
            model=self._model,
            leave_out=leave_out,
            **self._chunks,
        )

    def _parts(self, given: Any, label: str, columns: Columns) -> list[Part]:
        names = [given] if isinstance(given, str | Path) else given
        # Strings in a list are texts.
        paths = isinstance(names, Sequence) and all(isinstance(name, Path) for name in names)
        if isinstance(given, str) or (paths and len(names)):
            record = self._store.root / HUB_RECORD
            return named_parts([str(name) for name in names], columns, record)
        return table_parts(given, label, columns)


def _check(kind: Any, **values: Any) -> None:
    for name, value in values.items():
        if not isinstance(value, kind):
            raise TypeError(f"{name} must be a string, not {value!r}")


def _amount(budget: int | str | None, tokens: int | None, tokenizer: str) -> Amount:
    if tokens is not None:
        if budget is not None:
            raise TypeError("give a budget or tokens, not both")
        if (count := _integer("tokens", tokens)) < 1:
            raise ValueError(f"tokens must be at least 1, not {count}")
        return Amount(count, "tokens", tokenizer)
    if isinstance(budget, str) and budget.endswith("%"):
        return parse_share(budget)
    return Amount(_integer("budget", budget))


def _integer(name: str, value: Any) -> int:
    """Return an integer of any library as ``int``; a bool or a float is none."""
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise TypeError(f"{name} must be a whole number, not {value!r}")
    return int(value)
