"""`chopmix schema`: prints a JSON Schema of the YAML files for editors."""

from __future__ import annotations

import argparse
import json

HELP = "print a JSON Schema of the YAML files for editors"


def add_options(command: argparse.ArgumentParser) -> None:
    pass


def run(options: argparse.Namespace) -> None:
    from ..experiment.settings.config import json_schema

    print(json.dumps(json_schema(), indent=2))
