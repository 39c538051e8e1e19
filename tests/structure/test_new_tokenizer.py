"""A new tokenizer with its `EXAMPLE` passes the tests of the repository without another edit."""

import shutil
import subprocess
import sys

import pytest
from checkout import ROOT

IMPORTS = """import numpy as np
import torch
from torch import nn

from .base import Chopper, Chunk, Example
"""
EXAMPLE = """

EXAMPLE = Example(
    options={"ranges_per_token": 4},
    items=lambda: [np.sin(np.arange(16) ** power).astype(np.float32) for power in (1.3, 1.2)],
)
"""
TESTED = [
    "tests/tokenizers/test_every_tokenizer.py", "tests/tokenizers/test_odd_values.py",
    "tests/structure/test_limits.py", "tests/structure/test_repository_rules.py", "tests/experiment/test_explain.py",
]  # fmt: skip


@pytest.mark.system
def test_the_tokenizer_of_the_documentation_passes_all_tests(tmp_path):
    files = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in filter(None, files.split("\0")):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    text = (ROOT / "docs/add/modality.py").read_text()
    text = text.replace("import torch\nfrom chopmix import Chopper, Chunk\nfrom torch import nn\n", IMPORTS)
    assert IMPORTS in text
    (tmp_path / "tokenizers/lidar.py").write_text(text + EXAMPLE)
    command = [sys.executable, "-m", "pytest", "-q", *TESTED]
    environment = {"PYTHONPATH": str(tmp_path), "PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stdout[-3000:]
    command = [sys.executable, "-m", "pytest", "-rA", TESTED[0], "-k", "lidar"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env=environment)
    assert done.stdout.count("PASSED") >= 4, done.stdout[-3000:]
