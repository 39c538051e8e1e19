"""Generates the tables of `docs/*.md` and the README, and the results in the headers of `configs/*.yaml`, from
`benchmarks/results/`:

    python benchmarks/readme_tables.py            # prints the differences; exit status 1 if there are any
    python benchmarks/readme_tables.py --write    # writes the Markdown and the YAML files

A table is between `<!-- NAME -->` and `<!-- /NAME -->`; the results in a YAML begin with `# Reached` and
end with its first comment. All numbers come from the rows that `measure.py`, `peers.py`, `generation.py`,
`equal_steps.py` and `architectures.py` wrote; the texts in this code contain none.
"""

from __future__ import annotations

import argparse
import difflib
import sys
from collections.abc import Callable
from pathlib import Path

from readme.compared import architectures, equal_steps, speed
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
    """Returns a page with regenerated tables. Raises ValueError if a table does not have both markers once."""
    for name, table in TABLES.items():
        begin, end = f"<!-- {name} -->\n", f"<!-- /{name} -->"
        if begin not in text:
            continue
        if text.count(begin) != 1 or text.count(end) != 1:
            raise ValueError(f"a page must contain {begin.strip()} and {end} exactly once")
        before, _, rest = text.partition(begin)
        text = before + begin + table() + "\n" + end + rest.partition(end)[2]
    return text


def with_head(text: str, comment: str) -> str:
    """Returns a YAML whose header ends with a comment of the results. Raises ValueError if it has no header comment.

    >>> print(with_head("# A ViT.\\n# Reached once: 0.5\\ninputs: {}\\n", "# Reached: 0.9"))
    # A ViT.
    # Reached: 0.9
    inputs: {}
    """
    lines = text.splitlines(keepends=True)
    end = next(at for at, line in enumerate([*lines, ""]) if not line.startswith("#"))
    if not end:
        raise ValueError("the YAML must begin with a comment that describes it")
    begin = next((at for at, line in enumerate(lines[:end]) if line.startswith("# Reached")), end)
    return "".join([*lines[:begin], comment, "\n", *lines[end:]])


def expected_files() -> dict[Path, str]:
    """The pages and the YAML files with their expected contents. Raises ValueError if no page has a table."""
    pages = {file: file.read_text(encoding="utf-8") for file in (README, *sorted(README.parent.glob("docs/*.md")))}
    for name in TABLES:
        if not any(f"<!-- {name} -->\n" in text for text in pages.values()):
            raise ValueError(f"no page contains <!-- {name} -->")
    texts = {file: with_tables(text) for file, text in pages.items()}
    for row in REACHED:
        file = README.parent / "configs" / f"{row.config}.yaml"
        texts[file] = with_head(file.read_text(encoding="utf-8"), row.comment())
    return texts


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--write", action="store_true", help="write the Markdown and the YAML files")
    arguments, differ = options.parse_args(), False
    for file, text in expected_files().items():
        old = file.read_text(encoding="utf-8")
        if arguments.write and text != old:
            file.write_text(text, encoding="utf-8")
        elif text != old:
            differ = True
            name = str(file.relative_to(README.parent))
            print("\n".join(difflib.unified_diff(old.splitlines(), text.splitlines(), name, name, n=0, lineterm="")))
    return int(differ)


if __name__ == "__main__":
    sys.exit(main())
