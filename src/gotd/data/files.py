"""Read one file of rows, whatever its format, or say in one line what is wrong with it.

Parquet, JSON lines (plain, gzip or zstd) and CSV all become a plain Arrow table. The
file's name travels in the table's metadata, so that a check made later, on values, can
still name the file.
"""

from __future__ import annotations

import functools
import hashlib
import io
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

SUFFIXES = (".parquet", ".jsonl", ".jsonl.gz", ".jsonl.zst", ".csv")
"""The formats that `read` knows, by the end of the file's name."""

CSV_NUMBERS = ("label", "idx")
"""The CSV columns that may be numbers; in all others ``"2020"`` stays a text."""

ORIGIN = b"origin"


def read(path: Path, columns: Sequence[str] | None = None) -> pa.Table:
    """Read a file of rows.

    Args:
        path: A file whose name ends in one of `SUFFIXES`.
        columns: Those to keep, of those that the file has; ``None``: all.

    Returns:
        The rows in file order, at least one.

    Raises:
        FileNotFoundError: If there is no such file; lists what is there.
        ValueError: If the format is unknown, the file is empty, cut off or damaged, or a
            line cannot be read; names the line where there is one.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no file {path}; {listing(path.parent)}")
    if path.stat().st_size == 0:
        raise ValueError(f"{path} is empty (0 bytes); write its rows again")
    if path.name.endswith(".parquet"):
        table = _read_parquet(path, columns)
    elif path.name.endswith((".jsonl", ".jsonl.gz", ".jsonl.zst")):
        table = _read_jsonl(path)
    elif path.name.endswith(".csv"):
        table = _read_csv(path)
    else:
        raise ValueError(f"{path}: unknown format; use one of {', '.join(SUFFIXES)}")
    if table.num_rows == 0:
        raise ValueError(f"{path} has no rows; write its rows again or leave the file out")
    if columns is not None:
        table = table.select([name for name in columns if name in table.column_names])
    return table.replace_schema_metadata({ORIGIN: str(path).encode()})


def origin(table: pa.Table, otherwise: str) -> str:
    """Name the file a table was read from, or give ``otherwise``."""
    metadata = table.schema.metadata or {}
    return metadata.get(ORIGIN, otherwise.encode()).decode()


def stem(path: Path) -> str:
    """Give a file's name without its format's suffix."""
    for suffix in sorted(SUFFIXES, key=len, reverse=True):
        if path.name.endswith(suffix):
            return path.name.removesuffix(suffix)
    return path.stem


def row_files(folder: Path) -> list[Path]:
    """List the files in a folder that `read` knows, by name; empty if there is no folder."""
    if not folder.is_dir():
        return []
    return sorted(f for f in folder.iterdir() if f.is_file() and f.name.endswith(SUFFIXES))


def checksum(path: Path) -> str:
    """Give a file's SHA-256, computed once per (path, size, time of change)."""
    status = path.stat()
    return _checksum(str(path.resolve()), status.st_size, status.st_mtime_ns)


@functools.cache
def _checksum(path: str, size: int, modified_ns: int) -> str:
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def listing(folder: Path) -> str:
    """Say what is in a folder, for an error about something that is not."""
    if not folder.is_dir():
        return f"there is no folder {folder} either; check the path"
    names = sorted(f.name for f in folder.iterdir())
    return f"in {folder} there is: {', '.join(names) if names else 'nothing'}"


def first_line(error: BaseException) -> str:
    """Shorten an error to the first line of what it says."""
    return next(iter(str(error).splitlines()), type(error).__name__)


def no_parquet(path: Path, error: BaseException) -> ValueError:
    """Say that a file could not be read as Parquet, and what to do."""
    return ValueError(
        f"{path} is cut off, damaged or not Parquet ({first_line(error)}); copy it again"
    )


def parquet_columns(path: Path) -> list[str]:
    """Name the columns of a Parquet file; its rows are not read.

    Raises:
        ValueError: If it is damaged.
    """
    try:
        return pq.read_schema(path).names
    except (pa.ArrowException, OSError) as error:
        raise no_parquet(path, error) from error


def _read_parquet(path: Path, columns: Sequence[str] | None) -> pa.Table:
    try:
        with pq.ParquetFile(path) as file:
            present = file.schema_arrow.names
            wanted = present if columns is None else [c for c in columns if c in present]
            return file.read(columns=wanted)
    except (pa.ArrowException, OSError) as error:
        raise no_parquet(path, error) from error


def _read_csv(path: Path) -> pa.Table:
    try:
        header = pa_csv.open_csv(path).schema.names
        types = {name: pa.string() for name in header if name not in CSV_NUMBERS}
        return pa_csv.read_csv(
            path,
            # One thread, so that an error can say its row.
            read_options=pa_csv.ReadOptions(use_threads=False),
            parse_options=pa_csv.ParseOptions(newlines_in_values=True),
            convert_options=pa_csv.ConvertOptions(column_types=types, strings_can_be_null=False),
        )
    except (pa.ArrowException, OSError) as error:
        raise ValueError(
            f"{path} is not CSV in UTF-8 with one header line ({first_line(error)}); "
            "save it again as UTF-8, with texts in double quotes"
        ) from error


def _read_jsonl(path: Path) -> pa.Table:
    records = [record for _, record in json_objects(path)]
    names = dict.fromkeys(name for record in records for name in record)
    for name in names:
        if not says_utf8(name):
            raise ValueError(f"{path}: the name of field {name!r} is not UTF-8; rename it")
    return pa.table({name: _column(path, name, [r.get(name) for r in records]) for name in names})


def json_objects(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Read JSON lines one by one; blank lines are passed over.

    Yields:
        The line's number, from 1, and its object.

    Raises:
        ValueError: If a line is not UTF-8, not JSON or no object, or the file is cut off.
    """
    # Read line by line rather than with Arrow's reader: that one guesses types (a column
    # of dates would stop being text) and does not say which line is not UTF-8.
    for number, line in text_lines(path):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except json.JSONDecodeError as error:
            raise ValueError(
                f"{path} line {number} is not JSON ({error.msg}); the file may be cut off: "
                "write one object a line"
            ) from error
        except (ValueError, RecursionError) as error:
            problem = (
                "is nested too deeply"
                if isinstance(error, RecursionError)
                else "holds a whole number of thousands of digits"
            )
            raise ValueError(f"{path} line {number} {problem}; mend the line or drop it") from error
        if not isinstance(record, dict):
            raise ValueError(
                f"{path} line {number} holds a JSON {type(record).__name__}; "
                'write one object a line, such as {"id": "1", "text": "…"}'
            )
        yield number, record


def text_lines(path: Path) -> Iterator[tuple[int, str]]:
    """Read lines of UTF-8 one by one, their ends included.

    Yields:
        The line's number, from 1, and the line.

    Raises:
        ValueError: If a line is not UTF-8 or the file is cut off.
    """
    for number, line in enumerate(_lines(path), start=1):
        try:
            yield number, line.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError as error:
            raise ValueError(
                f"{path} line {number} is not UTF-8 (byte {error.start}); save it again as UTF-8"
            ) from error


def _lines(path: Path) -> Iterator[bytes]:
    try:
        with io.BufferedReader(pa.input_stream(str(path), compression="detect")) as file:  # type: ignore[arg-type]
            yield from file
    except pa.ArrowNotImplementedError as error:
        raise ValueError(
            f"{path}: this pyarrow cannot open it ({error}); decompress the file first"
        ) from error
    except OSError as error:
        raise ValueError(
            f"{path} is cut off or damaged ({first_line(error)}); copy it again"
        ) from error


def _column(path: Path, name: str, values: list[Any]) -> pa.Array:
    try:
        return pa.array(values)
    except UnicodeEncodeError as error:
        whole = (v if isinstance(v, str) else json.dumps(v, ensure_ascii=False) for v in values)
        row = next(i for i, value in enumerate(whole, 1) if not says_utf8(value))
        raise ValueError(
            f"{path} row {row}: field {name!r} holds half a character (a lone surrogate), "
            "which UTF-8 cannot say; repair the text"
        ) from error
    except (pa.ArrowException, OverflowError) as error:
        raise ValueError(f"{path} {_misfit(name, values, first_line(error))}") from error


def _misfit(name: str, values: Sequence[Any], reason: str) -> str:
    """Say which row keeps values from being one column, and what to do."""
    for row, value in enumerate(values, 1):
        if type(value) is int and not -(2**63) <= value < 2**63:
            return (
                f"row {row}: field {name!r} holds a whole number of more than 64 bits; "
                "write it as a string"
            )
    kinds = [type(value).__name__ for value in values]
    first = next(i for i, value in enumerate(values) if value is not None)
    for other, kind in enumerate(kinds):
        if kind not in (kinds[first], "NoneType"):
            return (
                f"row {other + 1}: field {name!r} holds {kind} where row {first + 1} holds "
                f"{kinds[first]}; give every row the same type"
            )
    return f"field {name!r}: {reason}; give every row the same type, or leave the field out"


def says_utf8(text: str) -> bool:
    """Tell whether UTF-8 can say a text: half of a surrogate pair it cannot."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
