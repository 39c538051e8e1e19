"""A run from someone else is data: it executes nothing, writes nothing elsewhere and opens no connection."""

from __future__ import annotations

import random

import payloads
import pytest
from judged import in_its_home

SAMPLE = 30
"""How many of all cases the suite runs; `python tests/fuzz/payloads.py` runs all."""


@pytest.fixture(scope="module")
@in_its_home
def runs(whole_judge):
    return payloads.base_runs(whole_judge)


def test_every_key_with_free_text_says_what_it_holds():
    """A new key is listed in `payloads.KINDS`, after its reader was looked at."""
    listed = [name for names in payloads.KINDS.values() for name in names]
    assert {str(key) for key in payloads.free_keys()} == set(listed)
    assert len(listed) > 90


def test_payloads_in_a_run_do_nothing(judge, runs, tmp_path):
    cases, before = payloads.all_cases(), judge.counts["payloads"].tried
    for case in random.Random(0).sample(cases, SAMPLE):
        payloads.run_case(case, runs, judge, tmp_path)  # raises where anything was executed, written or connected
    assert judge.counts["payloads"].tried == before + SAMPLE
