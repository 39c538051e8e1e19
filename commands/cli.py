"""The command line. Every other file in this folder, and in the `commands/` folders of projects, is one command. The
file is a module with these members:

    HELP                  the description of the command in `chopmix --help`
    add_options(command)  adds the arguments to the parser of the command
    AFTER                 only in projects: the command that precedes this command in `chopmix --help`
    run(options)          runs the command and returns the exit status (None is 0); `report_error` prints its errors

`chopmix --help` imports all of these modules, a command only its own. A command imports torch only inside `run`,
because importing torch takes seconds. `options/shared.py` contains the arguments that several commands share."""

from __future__ import annotations

import argparse
import importlib
import os
import re
import sys
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

from ..experiment.settings.hints import hint_for, missing_project
from ..files.plugins import ROOT, modules_of
from ..files.printing import on_terminal, printable
from ..files.signals import orderly_end

ORDER = (
    "init", "new", "prepare", "train", "generate", "predict", "forecast", "evaluate", "baselines", "embed", "merge",
    "inspect", "report", "examples", "compare", "import", "export", "explain", "schema",
)  # fmt: skip
"""The order of the commands in `--help`. The command of a project follows the command that its `AFTER` names."""

FLAGS = {
    "": ("out",), "data": ("dataset",), "model": ("depth", "width", "heads", "context"),
    "training": (
        "steps", "epochs", "seed", "learning_rate", "precision", "device", "samples_per_step", "tokens_per_step",
    ),
}  # fmt: skip
"""YAML keys that users often write as flags (`--steps 300`), by section (`""`: the top level). The error message
suggests the key instead."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command (default: the command in `sys.argv`). Returns the exit status: 0 for success; 2 for an error of
    the user; 1 for a failure of the machine, such as a full disk, and if a command returns 1, for example because
    samples cannot be read; 130 or 143 after Ctrl-C or SIGTERM. Raises SystemExit(2) if the arguments cannot be parsed,
    and the exceptions that `report_error` raises again."""
    options = parse(arguments)
    try:
        with on_terminal(), orderly_end():
            return options.command_module.run(options) or 0
    except BrokenPipeError:
        return 0
    except KeyboardInterrupt:  # not during training: the training loop handles Ctrl-C and saves a checkpoint
        print("\nstopped", file=sys.stderr)
        return 130
    except Exception as error:
        return report_error(error)


def report_error(error: Exception) -> int:
    """Prints an error message and returns the exit status: 1 for OSError (except FileNotFoundError) and MemoryError,
    else 2. Under torchrun only the first process with an error prints. Raises the error again if it is a bug of the
    program (any type that is not expected), or if CHOPMIX_TRACEBACK is set."""
    from ..data.processes import ElsewhereError, leave, speaks_of_failure
    from ..experiment.settings.document import ConfigError
    from ..models.contract import ContractError

    expected = isinstance(error, ValueError | OSError | ConfigError | ContractError | MemoryError)
    connection_lost = "RANK" in os.environ and isinstance(error, RuntimeError)  # another process has ended
    if os.environ.get("CHOPMIX_TRACEBACK") or not (expected or connection_lost):
        speaks_of_failure()
        raise error
    status = 1 if isinstance(error, OSError | MemoryError) and not isinstance(error, FileNotFoundError) else 2
    if not isinstance(error, ElsewhereError) and speaks_of_failure():
        message = error.strerror if isinstance(error, OSError) and not error.filename and error.strerror else error
        process = f"process {os.environ['RANK']}: " if os.environ.get("RANK", "0") != "0" else ""
        text = "out of memory" if isinstance(error, MemoryError) else message
        if connection_lost:
            text = str(message).strip().partition("\n")[0]  # the other lines are for developers
        print(f"{chr(10) * sys.stdout.isatty()}{process}{printable(str(text))}", file=sys.stderr, flush=True)
    return leave(status)


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Returns the options of one command. `KEY=VALUE` arguments may also follow flags; argparse alone does not support
    this. Prints a message and raises SystemExit(2) if arguments are unknown or missing."""
    words = sys.argv[1:] if arguments is None else arguments
    options, rest = parser(*words[:1]).parse_known_args(words)
    unknown = [word for word in rest if word.startswith("-") or not hasattr(options, "overrides")]
    if unknown:
        hint = flag_hint(unknown, rest) if hasattr(options, "overrides") else ""
        options.command_parser.error(f"unrecognized arguments: {' '.join(unknown)}{hint}")
    if rest:
        options.overrides = [*options.overrides, *rest]
    return options


def flag_hint(unknown: Sequence[str], rest: Sequence[str]) -> str:
    """Returns the end of an error message for the first of the `unknown` flags. `rest` contains all arguments that were
    not parsed. For `--steps 300` it returns `; did you mean training.steps=300?`."""
    flag, _, value = unknown[0].removeprefix("--").partition("=")
    following = rest[rest.index(unknown[0]) + 1 :]
    value = value or (following[0] if following and not following[0].startswith("-") else "VALUE")
    name = {"lr": "learning_rate"}.get(flag, flag).replace("-", "_")
    if name in ("batch_size", "bs"):
        return f"; did you mean training.samples_per_step={value} (or training.tokens_per_step)?"
    if hint := hint_for(name):
        return f"; {hint}"
    for section, keys in FLAGS.items():
        if name in keys:
            return f"; did you mean {f'{section}.' * bool(section)}{name}={value}?"
    return "; settings are written KEY=VALUE, such as training.steps=500"


def command_modules(command: str | None = None) -> dict[str, Any]:
    """Returns the module of a command by its name; those of all commands, in the order of `--help`, if there is no
    command of this name. If Python already uses the name of a command, the file name ends in `_model`: `import` is
    import_model.py, `inspect` is inspect_model.py."""
    files = {name.removesuffix("_model"): module for name, module in modules_of("commands").items() if name != "cli"}
    if command in files:
        return {command: importlib.import_module(files[command])}
    return all_commands(files)


def all_commands(files: Mapping[str, str]) -> dict[str, Any]:
    """Returns the modules of all commands by name, in the order of `--help`. `files` has the names of the modules."""
    modules = {name: importlib.import_module(module) for name, module in files.items()}

    def sort_key(name: str) -> tuple[int, bool, str]:
        after = getattr(modules[name], "AFTER", None)
        return ORDER.index(after or name), after is not None, modules[name].__name__

    return {name: modules[name] for name in sorted(modules, key=sort_key)}


class Parser(argparse.ArgumentParser):
    """The parser of argparse with other error messages. Control characters are shown as escapes. For a command of a
    project that is not installed, the message names the project."""

    def error(self, message: str) -> NoReturn:
        command = re.search(r"invalid choice: '(\w+)'", message)
        hint = f"; {missing}" if command and (missing := missing_project(command[1])) else ""
        super().error(printable(message + hint))


def parser(command: str | None = None) -> argparse.ArgumentParser:
    """Returns the parser of a command and its options; of all commands if there is no command of this name."""
    root = Parser(
        prog="chopmix",
        description="Chop up everything and throw it into the mix: train and use one transformer for every modality.",
        epilog="CHOPMIX_DATA is the folder of the data sets. CHOPMIX_TRACEBACK=1 prints the traceback of an error.",
    )
    root.add_argument("--version", action="version", version=f"{ROOT} {importlib.import_module(ROOT).__version__}")
    commands = root.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, module in command_modules(command).items():
        options = commands.add_parser(name, help=module.HELP)
        module.add_options(options)
        options.set_defaults(command_module=module, command_parser=options)
    return root


if __name__ == "__main__":
    sys.exit(main())
