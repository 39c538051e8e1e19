"""Writes a configuration as YAML with comments. Both can contain names from the data (classes, columns, files), with
any characters; they are written so that they remain text."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import yaml

from ...files.errors import UsageError
from ...files.printing import one_line
from ..settings.document import dumped_line, read_yaml


def commented(tree: Mapping[str, Any], header: Sequence[str], comments: Mapping[str, str]) -> str:
    """Returns a configuration as YAML with the lines of `header` as a comment at its beginning, and with `comments` on
    keys, by path (`inputs.image.size`). A mapping of plain values without comments is written in one line.

        # Which class does an image show?
        inputs:
          image:
            use: image
            size: 64  # images are scaled to this size
        tasks:
          label: {use: classification, target: label}

    The text is read again. Raises UsageError if the result is not `tree`."""
    text = "\n".join([*map(comment, header), *lines_of(tree, comments), ""])
    try:
        if read_yaml(text, {}, problems := []) == tree and not problems:
            return text
        reason = "a name in the data would change it"
    except yaml.YAMLError as error:  # it is too long, for a table with tens of thousands of columns
        reason = str(error)
    raise UsageError(f"the configuration cannot be written as YAML: {reason}")


def comment(text: str) -> str:
    """Returns a text as a comment of one line: every control character and every end of a line is escaped."""
    return f"# {one_line(text)}"


def lines_of(tree: Mapping[str, Any], comments: Mapping[str, str], path: str = "") -> Iterator[str]:
    """Yields the lines of a mapping, whose keys begin with `path`."""
    for key, value in tree.items():
        here = f"{path}{key}"
        end = f"  {comment(comments[here])}" if here in comments else ""
        has_comments = any(each.startswith(f"{here}.") for each in comments)
        if isinstance(value, Mapping) and (has_comments or any(isinstance(each, Mapping) for each in value.values())):
            yield f"{dumped_line(key)}:{end}"
            yield from (f"  {line}" for line in lines_of(value, comments, f"{here}."))
        else:
            yield f"{dumped_line(key)}: {dumped_line(value)}{end}"
