"""Docstrings of dataclass fields: the descriptions that an editor shows for the keys of a YAML."""

from __future__ import annotations

import ast
import inspect
import textwrap
from dataclasses import is_dataclass
from itertools import pairwise
from typing import Any


def attribute_docstrings(target: Any) -> dict[str, str]:
    """The string after each field of a dataclass, by field: `{"every": "Steps between two checkpoints"}`. Empty for
    anything else, and where the source cannot be read."""
    if not is_dataclass(target):
        return {}
    try:
        tree: Any = ast.parse(textwrap.dedent(inspect.getsource(target)))
    except (OSError, TypeError, SyntaxError):
        return {}
    return {
        node.target.id: inspect.cleandoc(str(text.value.value))
        for node, text in pairwise(tree.body[0].body)
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)
        if isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant)
    }
