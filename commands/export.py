"""`chopmix export RUN DIR`: exports a run as a Hugging Face model directory."""

from __future__ import annotations

import argparse
from pathlib import Path

from ..files.errors import UsageError
from .options.shared import add_checkpoint, load

HELP = "export a run as a Hugging Face model directory"
FILES = (".onnx", ".pt", ".pth", ".pt2", ".ts", ".bin", ".safetensors", ".gguf", ".ckpt", ".h5", ".tflite", ".zip")
"""File extensions of model files. The name of a directory must not end in one of them."""


def add_options(command: argparse.ArgumentParser) -> None:
    command.add_argument("run", metavar="RUN", help="the folder of a run")
    command.add_argument("directory", metavar="DIR", help="the new folder")
    add_checkpoint(command)


def run(options: argparse.Namespace) -> None:
    """Raises UsageError if the name of the directory ends in the extension of a model file."""
    from ..experiment.interchange.export import export_directory
    from ..files.printing import printable

    if (ending := Path(options.directory).suffix.lower()) in FILES:
        raise UsageError(
            f"{options.directory}: `chopmix export` does not write {ending} files. It writes a Hugging Face model "
            f"directory (config.json, model.safetensors and tokenizer files). Pass a folder, such as "
            f"{Path(options.directory).with_suffix('')}"
        )
    print(printable(export_directory(load(options), Path(options.directory))))
