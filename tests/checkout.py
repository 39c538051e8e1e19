"""Where the tests find what they are about."""

from pathlib import Path

TESTS = Path(__file__).resolve().parent
ROOT = TESTS.parent
BENCHMARKS, CONFIGS = ROOT / "benchmarks", ROOT / "configs"
