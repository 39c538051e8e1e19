"""YAML from someone else, within limits of size, depth and length of numbers. It has no tags, anchors and aliases, so a
short text cannot describe a large value."""

from __future__ import annotations

from typing import Any

import yaml

LONGEST, DEEPEST, DIGITS = 2**18, 40, 400
"""The largest number of characters of a text, the largest depth of nested mappings and lists, and the largest number of
characters of a number."""


class PlainLoader(yaml.SafeLoader):
    """PyYAML's safe loader, but anchors, aliases, tags and more than DEEPEST nested levels are errors. Numbers of more
    than DIGITS characters raise ValueError."""

    depth = 0

    def __init__(self, text: str):
        if len(text) > LONGEST:
            raise yaml.YAMLError(f"{len(text):,} characters; at most {LONGEST:,} are possible")
        super().__init__(text)

    def compose_node(self, parent: Any, index: Any) -> Any:
        event = self.peek_event()
        if isinstance(event, yaml.AliasEvent) or event.anchor or event.tag:
            kind = "tags (!) are" if getattr(event, "tag", None) else "anchors (&) and aliases (*) are"
            raise yaml.MarkedYAMLError(problem=f"{kind} not allowed in a configuration", problem_mark=event.start_mark)
        if self.depth >= DEEPEST:
            problem = f"more than {DEEPEST} nested mappings and lists"
            raise yaml.MarkedYAMLError(problem=problem, problem_mark=event.start_mark)
        self.depth += 1
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node

    def construct_yaml_int(self, node: yaml.ScalarNode) -> int:
        if len(node.value) > DIGITS:
            raise ValueError(f"a number of {len(node.value):,} characters")
        return super().construct_yaml_int(node)

    def construct_yaml_float(self, node: yaml.ScalarNode) -> float:
        if len(node.value) > DIGITS:
            raise ValueError(f"a number of {len(node.value):,} characters")
        return super().construct_yaml_float(node)


PlainLoader.add_constructor("tag:yaml.org,2002:int", PlainLoader.construct_yaml_int)
PlainLoader.add_constructor("tag:yaml.org,2002:float", PlainLoader.construct_yaml_float)


def load_plain(text: str) -> Any:
    """Returns the value of a YAML text. Raises yaml.YAMLError or ValueError if it is not YAML or exceeds a limit."""
    loader = PlainLoader(text)
    try:
        return loader.get_single_data()
    finally:
        loader.dispose()
