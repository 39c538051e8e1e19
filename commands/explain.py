"""`chopmix explain [WORD]`: prints what a YAML key, a part, an attention graph, a command or a class does."""

from __future__ import annotations

import argparse
import importlib
from pathlib import Path

HELP = "explain a YAML key, a part, an attention graph, a command or a class"


def add_options(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "word",
        nargs="?",
        metavar="WORD",
        help="for example heads, training.clip, rms_norm, causal, or a YAML file; nothing: lists all words",
    )


def run(options: argparse.Namespace) -> None:
    from rich.padding import Padding
    from rich.table import Table
    from rich.text import Text

    from ..experiment.explain import of_file, overview, topics_of
    from ..experiment.settings.config import load_config
    from ..files.plugins import modules_of
    from ..files.printing import plain_console

    console = plain_console(highlight=False)
    files = {name.removesuffix("_model"): module for name, module in modules_of("commands").items() if name != "cli"}
    commands = {name: importlib.import_module(module).HELP for name, module in files.items()}
    if options.word is None:
        topics = overview(commands)
    elif options.word.endswith((".yaml", ".yml")):
        topics = [of_file(load_config(Path(options.word)))]
    else:
        topics = topics_of(options.word, commands)
    for topic in topics:
        console.print(Text(topic.title, style="bold"))
        if topic.text:
            console.print(Padding(Text(topic.text), (0, 0, 0, 2)))
        if topic.rows:
            table, first = Table.grid(padding=(0, 2, 0, 0)), {}
            for name, facts, text in topic.rows:
                known = first.setdefault(text, name) if text else name
                shown = text if known == name else f"see {known}"
                table.add_row(Text(name), Text("\n".join(filter(None, [shown, facts]))))
            console.print(Padding(table, (0, 0, 0, 2)))
        console.print()
