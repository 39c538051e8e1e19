"""Your own samples in a JSONL manifest: one JSON object a line, whose values are data, or paths of files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ..card import read_lines
from ..root import DataError
from ..samples import Listed, SampleCard, Samples, share


class Manifest(SampleCard):
    """`train`, `val` and `test` each name a JSONL file; without `val` a tenth of train validates, by hash of the line's
    `key` (its number where it has none). `columns` are the keys that are read, `files` those of them that hold paths, from
    the manifest's folder on."""

    def __init__(
        self, *, train: str, val: str | None = None, test: str | None = None, columns: list[str],
        files: list[str] | None = None,
    ):  # fmt: skip
        self.train, self.val, self.test, self.columns, self.files = train, val, test, tuple(columns), files
        self.splits = ("train", "val") if test is None else ("train", "val", "test")
        if wrong := [name for name in files or () if name not in columns]:
            raise ValueError(f"files: {wrong[0]!r} is not among the columns ({', '.join(columns)})")

    def open(self, split: str) -> Samples:
        self.check_split(split)
        named = getattr(self, split)
        found = self._read(Path(named or self.train).expanduser())
        return share(found, split) if self.val is None and split != "test" else found

    def _read(self, path: Path) -> Samples:
        keys, rows = [], []
        for number, line in enumerate(read_lines(path), start=1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except (json.JSONDecodeError, UnicodeDecodeError) as error:
                raise DataError(f"{path}, line {number}: not JSON: {error}") from None
            if not isinstance(row, dict):
                raise DataError(f"{path}, line {number}: a mapping is expected, not {type(row).__name__}")
            keys.append(str(row.get("key", f"line {number}")))
            rows.append({name: self._value(path, name, row.get(name)) for name in self.columns})
        if not rows:
            raise DataError(f"{path} holds no samples")
        if len(set(keys)) != len(keys):
            raise DataError(f"{path}: the key {next(k for k in keys if keys.count(k) > 1)!r} stands twice")
        return Listed(keys, rows)

    def _value(self, path: Path, name: str, value: Any) -> Any:
        """A value; where it is a path, or a list of paths, from the manifest's folder on."""
        if name not in (self.files or ()):
            return value
        if isinstance(value, list):
            return [self._value(path, name, each) for each in value]
        return path.parent / value if isinstance(value, str) else value
