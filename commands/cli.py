"""The command line. Only this file is read for `--help`; a command's own imports (torch among them) come when it runs."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from typing import NoReturn

from ..tokenizers.files.printing import printable


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command. Gives 0, or 2 for a mistake of the user's, 1 for a failure of the machine's (a full disk)."""
    options = parse(arguments)
    try:
        from . import verbs as commands

        return getattr(commands, f"{options.command}_command")(options) or 0
    except BrokenPipeError:
        return 0
    except KeyboardInterrupt:  # while a run trains, Ctrl-C is heard by the loop, which saves
        print("\nstopped", file=sys.stderr)
        return 130
    except Exception as error:
        return tell(error)


def tell(error: Exception) -> int:
    """Say an error in one sentence (under torchrun the first process that has one does), and give the exit status. What is no
    mistake of the user's and no failure of the machine's is raised again."""
    from ..data.processes import ElsewhereError, leave, speaks_of_failure

    known = isinstance(error, ValueError | OSError | _config_error() | MemoryError)
    lost = "RANK" in os.environ and isinstance(error, RuntimeError)  # of the connection to a process that ended
    if os.environ.get("CHOPMIX_TRACEBACK") or not (known or lost):
        speaks_of_failure()
        raise error
    status = 1 if isinstance(error, OSError | MemoryError) and not isinstance(error, FileNotFoundError) else 2
    if not isinstance(error, ElsewhereError) and speaks_of_failure():
        message = error.strerror if isinstance(error, OSError) and not error.filename and error.strerror else error
        who = f"process {os.environ['RANK']}: " if os.environ.get("RANK", "0") != "0" else ""
        told = "memory is used up" if isinstance(error, MemoryError) else first_line(str(message)) if lost else message
        print(f"{chr(10) * sys.stdout.isatty()}{who}{printable(str(told))}", file=sys.stderr, flush=True)
    return leave(status)


def first_line(text: str) -> str:
    """The first line of a message that goes on with what only programmers read."""
    return text.strip().partition("\n")[0]


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The options of one command; `key=value` may also stand behind flags, where argparse alone would not take it."""
    root = parser()
    options, rest = root.parse_known_args(arguments)
    wrong = [word for word in rest if word.startswith("-") or not hasattr(options, "overrides")]
    if wrong:
        root.error(
            f"unrecognized arguments: {' '.join(wrong)}{meant(wrong, rest) if hasattr(options, 'overrides') else ''}"
        )
    if rest:
        options.overrides = [*options.overrides, *rest]
    return options


def meant(wrong: Sequence[str], rest: Sequence[str]) -> str:
    """What to say to `--steps 300`, where `training.steps=300` is written."""
    flag, _, value = wrong[0].removeprefix("--").partition("=")
    following = rest[rest.index(wrong[0]) + 1 :]
    value = value or (following[0] if following and not following[0].startswith("-") else "VALUE")
    keys = {"steps": "training", "seed": "training", "learning_rate": "training", "lr": "training", "precision": "training",
            "device": "training", "depth": "model", "width": "model", "heads": "model", "context": "model", "dataset": "data",
            "samples_per_step": "training", "tokens_per_step": "training", "out": ""}  # fmt: skip
    name = flag.replace("-", "_")
    if name in ("batch_size", "bs"):
        return f"; did you mean training.samples_per_step={value} (or training.tokens_per_step)?"
    if name not in keys:
        return "; settings are written KEY=VALUE, such as training.steps=500"
    key = ".".join(filter(None, (keys[name], "learning_rate" if name == "lr" else name)))
    return f"; did you mean {key}={value}?"


def _config_error() -> type[Exception]:
    from ..experiment.settings.config import ConfigError

    return ConfigError


class Parser(argparse.ArgumentParser):
    """Python's own, which shows what was given as it may be shown."""

    def error(self, message: str) -> NoReturn:
        super().error(printable(message))


def parser() -> argparse.ArgumentParser:
    """All commands and their options."""
    root = Parser(
        prog="chopmix",
        description="Chop up everything and throw it into the mix: train and use one transformer for every modality.",
        epilog="CHOPMIX_DATA names the folder with data sets; CHOPMIX_TRACEBACK=1 shows where an error came from.",
    )
    commands = root.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _train(commands.add_parser("train", help="train from a YAML file, or go on with a run that was stopped"))
    _generate(commands.add_parser("generate", help="continue a text, or start one"))
    _predict(commands.add_parser("predict", help="answer files of any of a run's inputs, as JSON lines"))
    _evaluate(commands.add_parser("evaluate", help="measure a run on a whole split"))
    _embed(commands.add_parser("embed", help="what a model makes of samples, as vectors: one a sample or one a token"))
    inspect = commands.add_parser("inspect", help="see what the model sees: tokens, and one batch unpacked")
    _config(inspect)
    inspect.add_argument("--html", metavar="FILE", help="where the page goes (default: beside the run's folder)")
    examples = commands.add_parser("examples", help="some samples of a data set as files, such as predict takes")
    _config(examples)
    examples.add_argument("--split", default="test", metavar="S", help="train, val or test (the default)")
    examples.add_argument("--number", type=int, default=3, metavar="N", help="how many (default: 3)")
    examples.add_argument("--output", metavar="DIR", default="examples", help="where they go (default: examples)")
    compare = commands.add_parser("compare", help="runs side by side: curves, means, spreads, paired differences")
    compare.add_argument("runs", nargs="+", metavar="RUN", help="a run, or a folder of seeds (RUN/seed-0, ...)")
    compare.add_argument("--picture", metavar="FILE", default="compare.png")
    _transcribe(
        commands.add_parser("transcribe", help="write down what is said in sound files, with an imported Whisper")
    )
    imports = commands.add_parser("import", help="turn a Hugging Face model directory into a run")
    imports.add_argument("directory", metavar="DIR")
    imports.add_argument("run", metavar="RUN")
    imports.add_argument("--partly", action="store_true", help="even where weights are missing or left over")
    commands.add_parser("schema", help="print a JSON Schema of the YAML files, for editors")
    return root


def _config(command: argparse.ArgumentParser) -> None:
    command.add_argument("config", metavar="CONFIG", help="a YAML file, or a run's folder")
    command.add_argument("overrides", nargs="*", default=[], metavar="KEY=VALUE")
    _trust(command)


def _train(command: argparse.ArgumentParser) -> None:
    command.add_argument("config", metavar="CONFIG", help="a YAML file, see configs/")
    command.add_argument(
        "overrides", nargs="*", default=[], metavar="KEY=VALUE", help="e.g. training.steps=500 model.depth=6"
    )
    command.add_argument("--dry-run", action="store_true", help="check everything, print the costs, run one step")
    command.add_argument("--seeds", metavar="0,1,2", help="train once per seed and print the mean and the spread")
    command.add_argument("--sweep", action="append", metavar="KEY=A,B",
                         help="train once per value and print a table; repeatable: every combination")  # fmt: skip


def _generate(command: argparse.ArgumentParser) -> None:
    command.add_argument("run", metavar="RUN")
    _inputs(command)
    source = command.add_mutually_exclusive_group()
    source.add_argument("--prompt", metavar="TEXT", help="what to continue; none: a new document")
    source.add_argument("--prompts", metavar="FILE", help="a file with one prompt a line, continued together")
    command.add_argument("--max-tokens", type=int, default=200, metavar="N")
    command.add_argument("--temperature", type=float, metavar="T", help="0: always the likeliest token (default: 1)")
    command.add_argument("--top-k", type=int, metavar="N")
    command.add_argument("--top-p", type=float, metavar="P")
    command.add_argument("--min-p", type=float, metavar="P")
    command.add_argument("--repetition-penalty", type=float, metavar="R")
    _search(command)
    command.add_argument("--stop", action="append", default=[], metavar="TEXT", help="end before this text; repeatable")
    command.add_argument("--seed", type=int, metavar="N", help="the same seed gives the same text")
    _which(command)
    command.add_argument("--no-cache", action="store_true", help="read the whole text again for every token (slow)")


def _predict(command: argparse.ArgumentParser) -> None:
    command.add_argument("run", metavar="RUN")
    _inputs(command, required=True)
    _search(command)
    _which(command)


def _embed(command: argparse.ArgumentParser) -> None:
    command.add_argument("run", metavar="RUN")
    _inputs(command)
    command.add_argument(
        "--data", metavar="DATA", help="a data set: a dataset as a YAML writes it, a folder, a manifest, shards, texts"
    )
    command.add_argument("--split", default="test", metavar="S", help="of a dataset: train, val or test (the default)")
    command.add_argument("--pool", choices=("mean", "first", "tokens"), default="mean",
                         help="the mean over a sample's tokens (the default), its first token, or every token")  # fmt: skip
    command.add_argument(
        "--output", metavar="FILE", help="a .npy, .csv or .parquet file (default: JSON lines, printed)"
    )
    _which(command)


def _search(command: argparse.ArgumentParser) -> None:
    command.add_argument("--beams", type=int, metavar="N",
                         help="search for texts with so many beams (1: greedily); what is not given is as the task says")  # fmt: skip
    command.add_argument("--length-penalty", type=float, metavar="A", help="above 1: longer texts")
    command.add_argument("--no-repeat", type=int, metavar="N", help="no N tokens in a row twice in a text")


def _transcribe(command: argparse.ArgumentParser) -> None:
    command.add_argument("run", metavar="RUN")
    command.add_argument("files", nargs="+", metavar="FILE", help="wav, flac, ogg or mp3, of any length")
    command.add_argument("--format", action="append", choices=("txt", "json", "srt", "vtt"), default=[],
                         help="also write FILE.FORMAT; repeatable")  # fmt: skip
    command.add_argument("--output", metavar="DIR", help="where those go (default: beside each file)")
    command.add_argument(
        "--language", metavar="NAME", help="such as de or German; default: what the model was tuned for, else detected"
    )
    command.add_argument("--translate", action="store_true", help="into English")
    command.add_argument("--no-timestamps", action="store_true", help="segments of 30 seconds, without times inside")
    command.add_argument("--beams", type=int, default=5, metavar="N")
    command.add_argument("--temperature", type=float, action="append", metavar="T",
                         help="tried in turn; repeatable (default: 0, 0.2, ... 1)")  # fmt: skip
    command.add_argument("--independent", action="store_true", help="read every window without the text before it")
    _which(command)


def _which(command: argparse.ArgumentParser) -> None:
    command.add_argument("--checkpoint", choices=("best", "last"), default="best")
    command.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    _trust(command)


def _trust(command: argparse.ArgumentParser) -> None:
    command.add_argument("--trust", action="append", default=[], metavar="MODULE",
                         help="a module outside chopmix that the run may use, such as its author's tokenizer; it is executed")  # fmt: skip


def _inputs(command: argparse.ArgumentParser, required: bool = False) -> None:
    command.add_argument(
        "--input", action="append", default=[], metavar="NAME=VALUE", required=required,
        help="a file for an input, or its text; repeat it for other inputs, and for more samples",
    )  # fmt: skip


def _evaluate(command: argparse.ArgumentParser) -> None:
    command.add_argument("run", metavar="RUN")
    command.add_argument(
        "--data",
        metavar="DATA",
        help="another data set: a dataset as a YAML writes it, a folder, a manifest, shards, texts",
    )
    command.add_argument("--split", default="val", metavar="S", help="train, val (the default) or test")
    _which(command)
    _search(command)
    command.add_argument("--subsets", action="store_true", help="also tell what each input is worth")
    command.add_argument("--json", metavar="FILE", help="also write the figures there")


if __name__ == "__main__":
    sys.exit(main())
