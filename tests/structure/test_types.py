"""Annotations of types: all packages are checked while the quick tests run. The default tier checks only the packages
with most tensors, because checks of all packages take half as long as the tests."""

import subprocess
import sys

import pytest
from checkout import PACKAGES, ROOT


@pytest.mark.system
def test_values_have_the_annotated_types():
    packages = ",".join(f"chopmix.{name}" for name in PACKAGES)
    options = f"-q --strict-markers --jaxtyping-packages={packages},shapes.check"
    command = [sys.executable, "-m", "pytest", "-o", f"addopts={options}", "-m", "quick", "-p", "no:cacheprovider"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]
