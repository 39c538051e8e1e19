"""Compares a run on the Python standard library with compressors, and tests whether its generated lines are Python.

    python benchmarks/python_lines.py runs/lm/python_stdlib

Prints the validation bits per byte of the run, of `zlib -9` per file and of `xz` over all files, and the share of
generated lines that Python's tokenizer accepts. Each line is tokenized separately, without its indentation.
"""

from __future__ import annotations

import argparse
import io
import json
import lzma
import tokenize
import zlib
from pathlib import Path

from chopmix.experiment.run import load_run
from chopmix.models.generation.sampling import Sampling


def accepted(line: str) -> bool:
    """Returns whether Python's tokenizer accepts a line. An open bracket or triple-quoted string is accepted.

    Errors are ERRORTOKEN tokens up to Python 3.11 and exceptions since 3.12.
    """
    try:
        tokens = list(tokenize.generate_tokens(io.StringIO(line.strip() + "\n").readline))
    except tokenize.TokenError as error:
        return "EOF in multi-line" in str(error) or "unexpected EOF" in str(error)
    except (SyntaxError, IndentationError):
        return False
    return all(token.type != tokenize.ERRORTOKEN for token in tokens)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("run", type=Path)
    options.add_argument("--tokens", type=int, default=400)
    options.add_argument("--texts", type=int, default=8)
    chosen = options.parse_args()
    run = load_run(chosen.run)
    dataset = run.config.data.dataset()
    about = dataset.about()
    texts = [document.text.encode() for document in dataset.documents("val")]
    size = sum(map(len, texts))
    zipped = 8 * sum(len(zlib.compress(text, 9)) for text in texts) / size
    packed = 8 * len(lzma.compress(b"".join(texts), preset=9)) / size
    best = json.loads((chosen.run / "best.json").read_text())
    samples = run.generate(
        [None] * chosen.texts, max_tokens=chosen.tokens, sampling=Sampling(temperature=0.8, top_p=0.95), seed=0
    )
    lines = [line for text in samples for line in text.splitlines()[:-1] if line.strip()]
    share = sum(map(accepted, lines)) / max(len(lines), 1)
    print(f"python {about['python']}: {size:,} validation bytes in {len(texts)} files")
    print(
        f"bits per byte: model {best['val/bits_per_byte']:.3f}, zlib -9 per file {zipped:.3f}, xz of all files "
        f"{packed:.3f}"
    )
    print(f"{share:.1%} of {len(lines)} generated lines are accepted by Python's tokenizer")


if __name__ == "__main__":
    main()
