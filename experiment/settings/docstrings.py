"""The texts under the fields of a dataclass: what they are for, as an editor shows it."""

from __future__ import annotations

import ast
import inspect
import textwrap
from dataclasses import is_dataclass
from itertools import pairwise
from typing import Any


def attribute_docstrings(target: Any) -> dict[str, str]:
    """The texts under the fields of a dataclass, by field; none where the source is not at hand."""
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
