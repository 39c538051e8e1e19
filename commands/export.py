"""`chopmix export RUN DIR`: turn a run into a Hugging Face model directory."""

from __future__ import annotations

import argparse
from pathlib import Path

from .options.shared import add_checkpoint, load

HELP = "turn a run into a Hugging Face model directory"
FILES = (".onnx", ".pt", ".pth", ".pt2", ".ts", ".bin", ".safetensors", ".gguf", ".ckpt", ".h5", ".tflite", ".zip")
"""Endings of model files, which a directory is not meant to have."""


def add_options(command: argparse.ArgumentParser) -> None:
    command.add_argument("run", metavar="RUN")
    command.add_argument("directory", metavar="DIR")
    add_checkpoint(command)


def run(options: argparse.Namespace) -> None:
    """Raises RunError for a directory that is named like a model file."""
    from ..experiment.interchange.export import export_directory
    from ..experiment.run_folder import RunError
    from ..files.printing import printable

    if (ending := Path(options.directory).suffix.lower()) in FILES:
        raise RunError(
            f"{options.directory}: `chopmix export` writes no {ending} file but a Hugging Face model directory "
            f"(config.json, model.safetensors and the tokenizer's files); name a folder, such as "
            f"{Path(options.directory).with_suffix('')}"
        )
    print(printable(export_directory(load(options), Path(options.directory))))
