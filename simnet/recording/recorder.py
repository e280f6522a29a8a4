"""Rows into Parquet files, a bounded number at a time.

A recorder without a directory counts rows and keeps none.
"""

from pathlib import Path
from typing import Any, Final

from simnet.extra import need
from simnet.recording.tables import TABLES

BUFFER_ROWS: Final = 1 << 15


class Recorder:
    """The tables of one run, as they are written."""

    def __init__(self, directory: Path | None) -> None:
        self._directory = directory
        self._arrow: Any = None
        self._parquet: Any = None
        if directory is not None:
            self._arrow = need("pyarrow")
            self._parquet = need("pyarrow.parquet")
        self._rows: dict[str, list[tuple[Any, ...]]] = {name: [] for name in TABLES}
        self._writers: dict[str, Any] = {}
        self.rows = dict.fromkeys(TABLES, 0)

    @property
    def keeps(self) -> bool:
        """Whether anything is written."""
        return self._directory is not None

    def add(self, table: str, row: tuple[Any, ...]) -> None:
        """One row, in the order of the table's columns."""
        self.rows[table] += 1
        if self._directory is None:
            return
        rows = self._rows[table]
        rows.append(row)
        if len(rows) >= BUFFER_ROWS:
            self._flush(table)

    def _flush(self, table: str) -> None:
        rows, columns = self._rows[table], TABLES[table]
        arrow = self._arrow
        schema = arrow.schema(
            [
                arrow.field(name, getattr(arrow, _ARROW[kind])(), metadata={"meaning": meaning})
                for name, kind, meaning in columns
            ]
        )
        values = list(zip(*rows, strict=True)) if rows else [()] * len(columns)
        arrays = [
            arrow.array(column, field.type) for column, field in zip(values, schema, strict=True)
        ]
        if table not in self._writers:
            assert self._directory is not None
            path = self._directory / f"{table}.parquet"
            self._writers[table] = self._parquet.ParquetWriter(path, schema, compression="zstd")
        self._writers[table].write_table(arrow.Table.from_arrays(arrays, schema=schema))
        rows.clear()

    def close(self) -> None:
        """Write what is left; every table has a file, an empty one too."""
        if self._directory is None:
            return
        for table in TABLES:
            self._flush(table)
        for writer in self._writers.values():
            writer.close()


_ARROW: Final = {"int64": "int64", "uint8": "uint8", "string": "string", "bool": "bool_"}
