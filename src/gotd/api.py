"""Selection from Python: ``GOTD(epsilon=0.05).fit(target, candidates).select(budget=50_000)``.

A thin interface to `gotd.pipeline.select`, which ``gotd select`` uses too. The selector
itself is `gotd.selectors.got_d.GotD`.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from numbers import Integral, Real
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import pyarrow as pa
import pyarrow.parquet as pq

from gotd.data.chunking import Unit
from gotd.data.columns import Columns
from gotd.data.hub.stream import HUB_RECORD
from gotd.data.inputs import Part, named_parts, table_parts
from gotd.embedding.encoders import named_encoder
from gotd.engine.local import Engine, LocalEngine
from gotd.pipeline.output import describe
from gotd.pipeline.select import Prepared, Request
from gotd.selection_report.markdown import report
from gotd.selectors.registry import build_selector
from gotd.storage.artifacts import Store

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, eq=False)
class Selection:
    """The chosen rows, best first.

    Args:
        table: Columns ``id``, ``text``, ``score`` (lower was selected first), ``rank``
            (from 1) and ``domain``; with explanations ``target_id`` and ``target_share``.
        summary: What was chosen, in numbers, beside what chance would have chosen.
        manifest: Everything needed to get it again.
    """

    table: pa.Table
    summary: Mapping[str, Any] = field(repr=False)
    manifest: Mapping[str, Any] = field(repr=False)

    def __len__(self) -> int:
        return self.table.num_rows

    @property
    def ids(self) -> list[str]:
        """Return the ids of the rows."""
        return self.table["id"].to_pylist()

    @property
    def texts(self) -> list[str]:
        """Return the texts of the rows."""
        return self.table["text"].to_pylist()

    @property
    def scores(self) -> Any:
        """Return the scores of the rows: float64 ``[budget]``."""
        return self.table["score"].to_numpy()

    @property
    def rank(self) -> Any:
        """Return the ranks of the rows, from 1: int64 ``[budget]``."""
        return self.table["rank"].to_numpy()

    @property
    def report(self) -> str:
        """Return the report on the selection, in Markdown."""
        return report(self.manifest, {len(self): self.summary})

    def to_parquet(self, path: str | Path) -> None:
        """Write the rows to a Parquet file."""
        pq.write_table(self.table, path, compression="zstd")

    def to_pandas(self) -> pd.DataFrame:
        """Return the rows as a data frame."""
        return self.table.to_pandas()


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
        device: ``auto``, ``cpu`` or ``cuda``.
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
        self._method, self._name = build_selector(method, given), method
        self._encoder, self._model = named_encoder(encoder, device), model
        self._unit: Unit = unit
        self._seed = _integer("seed", seed)
        self._length_chars = _integer("length_chars", length_chars)
        self._min_chars = _integer("min_chars", min_chars)
        self._engine = engine or LocalEngine()
        self._temporary = tempfile.TemporaryDirectory(prefix="gotd-") if store is None else None
        self._store = Store(Path(self._temporary.name if self._temporary else str(store)))
        self._request: Request | None = None

    def fit(
        self,
        target: Any,
        candidates: Any,
        *,
        text_column: str = "text",
        target_text_column: str | None = None,
        id_column: str | None = None,
        domain_column: str | None = None,
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
            domain_column: The candidates' column of the domain; ``domain``, or else the
                file's name, when ``None``.

        Raises:
            TypeError: If what was given is none of these, or a column's name is no string;
                names the row of a text that is no string.
            ValueError: If rows cannot be read, or a solve misses its tolerance.
            FileNotFoundError: If a file, data set or encoder is not there.
        """
        _check(str, text_column=text_column)
        _check(str | None, target_text_column=target_text_column)
        _check(str | None, id_column=id_column, domain_column=domain_column)
        columns = Columns(tuple(text_column.split(",")), id_column, domain_column)
        target_columns = Columns(tuple((target_text_column or text_column).split(",")))
        self._request = Request(
            target=self._parts(target, "target", target_columns),
            candidates=self._parts(candidates, "candidates", columns),
            method=self._method,
            method_name=self._name,
            encoder=self._encoder,
            target_columns=target_columns,
            columns=columns,
            unit=self._unit,
            length_chars=self._length_chars,
            min_chars=self._min_chars,
            seed=self._seed,
            model=self._model,
        )
        if callable(getattr(self._method, "scores", None)):
            Prepared(self._request, 1, self._store, self._engine)
        return self

    def select(self, budget: int, *, explain: bool = False) -> Selection:
        """Take the ``budget`` best candidates; a smaller budget is a prefix of a larger.

        Args:
            budget: Rows to take.
            explain: Add to each row which target it serves.

        Raises:
            RuntimeError: If nothing was fitted.
            TypeError: If the budget is no whole number.
            ValueError: If the budget is below 1 or larger than the pool.
        """
        if self._request is None:
            raise RuntimeError("nothing is fitted yet; call fit(target, candidates) first")
        budget = _integer("budget", budget)
        prepared = Prepared(self._request, budget, self._store, self._engine)
        selected = prepared.select(budget, explain=explain)
        table = pa.concat_tables(selected.blocks())
        return Selection(table, selected.summary(self._seed), describe(prepared, "gotd.GOTD"))

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


def _integer(name: str, value: Any) -> int:
    """Return an integer of any library as ``int``; a bool or a float is none."""
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise TypeError(f"{name} must be a whole number, not {value!r}")
    return int(value)
