"""The README's tables and what the heads of `configs/*.yaml` say was reached, made of `benchmarks/results/` alone:

    python benchmarks/readme_tables.py            # says what differs; exit status 1 where something does
    python benchmarks/readme_tables.py --write    # puts it into README.md and the YAMLs

A table stands between `<!-- NAME -->` and `<!-- /NAME -->`, in a YAML from `# Reached` to the end of that comment. What
is said here in words holds no figures: these come from the rows that `measure.py`, `peers.py`, `generation.py`,
`equal_steps.py` and `architectures.py` have written.
"""

from __future__ import annotations

import argparse
import difflib
import sys
from collections.abc import Callable
from pathlib import Path

from readme.beside import architectures, equal_steps, speed
from readme.figures import README
from readme.reached import REACHED, quickstart, reached

TABLES: dict[str, Callable[[], str]] = {
    "quickstart": quickstart,
    "reached": reached,
    "speed": speed,
    "equal steps": equal_steps,
    "architectures": architectures,
}


def with_tables(text: str) -> str:
    """The README with its tables made anew. Raises ValueError for one that has no place in it."""
    for name, make in TABLES.items():
        begin, end = f"<!-- {name} -->\n", f"\n<!-- /{name} -->"
        if text.count(begin) != 1 or text.count(end) != 1:
            raise ValueError(f"README.md must have {begin.strip()} and {end.strip()} once each")
        before, _, rest = text.partition(begin)
        text = before + begin + make() + end + rest.partition(end)[2]
    return text


def with_head(text: str, comment: str) -> str:
    """A YAML whose head ends with a comment of what was reached. Raises ValueError for one that has no head.

    >>> print(with_head("# A ViT.\\n# Reached once: 0.5\\ninputs: {}\\n", "# Reached: 0.9"))
    # A ViT.
    # Reached: 0.9
    inputs: {}
    """
    lines = text.splitlines(keepends=True)
    end = next(at for at, line in enumerate([*lines, ""]) if not line.startswith("#"))
    if not end:
        raise ValueError("the YAML must begin with a comment of what it is")
    begin = next((at for at, line in enumerate(lines[:end]) if line.startswith("# Reached")), end)
    return "".join([*lines[:begin], comment, "\n", *lines[end:]])


def made() -> dict[Path, str]:
    """The README and the YAMLs as they should be."""
    texts = {README: with_tables(README.read_text(encoding="utf-8"))}
    for row in REACHED:
        file = README.parent / "configs" / f"{row.config}.yaml"
        texts[file] = with_head(file.read_text(encoding="utf-8"), row.comment())
    return texts


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--write", action="store_true", help="put it into README.md and the YAMLs")
    chosen, differ = options.parse_args(), False
    for file, text in made().items():
        old = file.read_text(encoding="utf-8")
        if chosen.write and text != old:
            file.write_text(text, encoding="utf-8")
        elif text != old:
            differ = True
            name = str(file.relative_to(README.parent))
            print("\n".join(difflib.unified_diff(old.splitlines(), text.splitlines(), name, name, n=0, lineterm="")))
    return int(differ)


if __name__ == "__main__":
    sys.exit(main())
