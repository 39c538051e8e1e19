"""`chopmix new text`: a language model of text files."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np

from ...files.reading import DataError
from .start import Start


def text(path: Path, encoder: str | None = None) -> Start:
    """Returns the configuration of a language model. `path` is a file, or a folder with texts (`.txt`, `.md`, `.py`,
    ...). Raises DataError if there is no text."""
    if path.is_file():
        pattern, files = str(path), [path]
    else:
        endings = Counter(file.suffix for file in path.rglob("*") if file.is_file())
        ending = max((e for e in endings if e in (".txt", ".md", ".py", ".rst", ".tex", ".jsonl")), default=None,
                     key=lambda e: endings[e])  # fmt: skip
        if ending is None:
            raise DataError(f"{path} has no texts (.txt, .md, .py, .rst, .tex, .jsonl)")
        pattern, files = f"{path}/**/*{ending}", [file for file in path.rglob(f"*{ending}") if file.is_file()]
    size = sum(file.stat().st_size for file in files)
    if size < 2000:
        raise DataError(f"{path} has only {size} bytes of text; at least 2,000 are needed")
    vocabulary = 257 if size < 200_000 else 1024 if size < 2_000_000 else 4096
    encoding = {"encoding": "bytes"} if vocabulary == 257 else {"encoding": "bpe", "vocabulary": vocabulary}
    context = 128 if size < 200_000 else 256
    steps = int(np.clip(size / (3.5 if vocabulary > 257 else 1) * 8 / 2048, 200, 400))
    return Start(
        question="A language model.", found=[f"{len(files):,} file(s), {size:,} bytes"],
        inputs={"text": {"use": "text", **encoding, "position": None}},
        model={"width": 128, "depth": 4, "dropout": 0.1 if size < 2_000_000 else 0.0, "context": context,
               "attention": "causal & same_sample", "position": "rotary"},
        tasks={"lm": {"use": "language_modeling", "target": "text", "head": "unembedding"}},
        data={"dataset": {"use": "text", "train": pattern}},
        training={"steps": steps, "tokens_per_step": 2048}, best="val/loss",
    )  # fmt: skip
