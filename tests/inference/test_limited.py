"""A function in a process of its own ends with a result, with an error, or by force."""

import os
import time
from functools import partial

import numpy as np
from chopmix.inference.limited import in_process, packed, unpacked


def test_a_result_an_error_and_a_time_limit():
    outcome = in_process(partial(np.split, np.arange(6.0), 2), 60)
    assert [each.tolist() for each in outcome.value] == [[0, 1, 2], [3, 4, 5]] and not outcome.problem
    outcome = in_process(partial(divmod, 1, 0), 60)
    assert outcome.value is None and outcome.problem.startswith("ZeroDivisionError: ")
    begin = time.monotonic()
    outcome = in_process(partial(time.sleep, 300), 0.2)
    assert (outcome.value, outcome.problem) == (None, "stopped after 0.2 s") and time.monotonic() - begin < 100


def test_a_process_that_ends_and_a_function_that_cannot_be_sent():
    outcome = in_process(partial(os._exit, 3), 60)
    assert outcome.problem.startswith("its process ended without a result")
    assert in_process(partial(lambda: 1), 60).problem.startswith("it cannot be sent to another process")


def test_arrays_and_lists_of_arrays_are_sent_without_pickle():
    ragged = [np.arange(3.0), np.empty(0), np.arange(2.0)]
    first, second, empty = unpacked(packed([np.ones((2, 3)), ragged, []]))
    assert first.shape == (2, 3) and [each.tolist() for each in second] == [[0, 1, 2], [], [0, 1]] and len(empty) == 0
