"""A run or a data set from someone else executes no code, writes to no other folder and opens no connection."""

from __future__ import annotations

import random

import hostile_files
import payloads
import pytest
from chopmix.commands.cli import command_modules
from judged import in_its_home

SAMPLE = {payloads.Case: 24, payloads.WordCase: 4, payloads.LinkCase: 6, hostile_files.FileCase: 16}
"""How many cases of each kind the suite runs; `python tests/fuzz/payloads.py` runs all."""


@pytest.fixture(scope="module")
@in_its_home
def runs(whole_judge):
    return payloads.base_runs(whole_judge)


def test_every_key_with_free_text_is_listed():
    """A new key must be added to `payloads.KINDS`, after a review of the code that reads it."""
    listed = [name for names in payloads.KINDS.values() for name in names]
    assert {str(key) for key in payloads.free_keys()} == set(listed)
    assert len(listed) > 90


def test_every_command_is_tried_with_every_kind_of_file_that_it_reads():
    """The pairs are generated from the arguments of all commands; each pair has command lines."""
    pairs, unknown = hostile_files.readings()
    assert not unknown, "the metavars of these arguments belong into hostile_files.READ_BY_METAVAR or NOT_READ"
    assert pairs == {*hostile_files.LINES} | hostile_files.ELSEWHERE
    commands = {command for command, _ in pairs}
    assert {*command_modules()} - commands == {"schema"}  # which reads nothing


@pytest.mark.parametrize("kind", SAMPLE, ids=lambda kind: kind.__name__)
def test_files_from_someone_else_do_nothing(judge, runs, tmp_path, kind):
    cases = [case for case in payloads.all_cases() if isinstance(case, kind)]
    for case in random.Random(0).sample(cases, SAMPLE[kind]):
        payloads.run_case(case, runs, judge, tmp_path)  # raises if anything was executed, written or connected


@pytest.mark.parametrize("end", hostile_files.ENDS[:5])
@pytest.mark.parametrize("place", ["a class folder of images", "a class in a cell", "a label's column of sounds"])
def test_no_name_adds_a_line_to_a_configuration(judge, runs, tmp_path, place, end):
    """`chopmix new` writes names into comments; a line of YAML inside a name is not read."""
    case = hostile_files.FileCase(place, f"b{end}{hostile_files.STEPS[0]}{end}#", hostile_files.LINES["new", "data"][0])
    payloads.run_case(case, runs, judge, tmp_path)
    assert (judge.case / "output" / "new.yaml").exists()


@pytest.mark.system
@pytest.mark.parametrize("place", hostile_files.JOINED)
def test_joined_samples_with_every_hostile_name(judge, runs, tmp_path, place):
    """`chopmix new samples` writes or refuses; nothing is executed or written elsewhere."""
    for case in hostile_files.file_cases():
        if case.place == place:
            payloads.run_case(case, runs, judge, tmp_path)
