"""The README's tables, made of `benchmarks/results/` alone:

    python benchmarks/readme_tables.py            # says which tables differ; exit status 1 where one does
    python benchmarks/readme_tables.py --write    # puts them into README.md

A table stands between `<!-- NAME -->` and `<!-- /NAME -->`. What is said here in words holds no figures: these come
from the rows that `measure.py`, `peers.py`, `generation.py`, `equal_steps.py` and `architectures.py` have written.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable

from readme.beside import architectures, equal_steps, speed
from readme.figures import README
from readme.reached import quickstart, reached

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


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--write", action="store_true", help="put the tables into README.md")
    chosen = options.parse_args()
    text = README.read_text(encoding="utf-8")
    made = with_tables(text)
    if chosen.write:
        README.write_text(made, encoding="utf-8")
        return 0
    for old, new in zip(text.splitlines(), made.splitlines()):
        if old != new:
            print(f"- {old}\n+ {new}")
    return int(made != text)


if __name__ == "__main__":
    sys.exit(main())
