"""Requests to stop a training by signals."""

import os
import signal
from contextlib import suppress

import pytest
from chopmix.training.stop import StopRequest


def interrupt():
    os.kill(os.getpid(), signal.SIGINT)


def test_the_first_signal_is_noted_and_a_second_ctrl_c_stops_at_once():
    with pytest.raises(KeyboardInterrupt), StopRequest() as stop:
        interrupt()
        assert stop.signal == signal.SIGINT
        interrupt()


def test_a_second_ctrl_c_counts_if_a_library_ignores_it():
    """As Python does in a destructor or in a callback of C."""
    with pytest.raises(KeyboardInterrupt), StopRequest():
        interrupt()
        with suppress(KeyboardInterrupt):
            interrupt()


def test_a_second_ctrl_c_counts_if_a_library_turns_it_into_its_own_error():
    """As torch did when it read a file of weights: the file was called damaged."""
    with pytest.raises(KeyboardInterrupt) as caught, StopRequest():
        interrupt()
        try:
            interrupt()
        except KeyboardInterrupt:
            raise TypeError("could not determine the shape") from None
    assert isinstance(caught.value.__cause__, TypeError)


def test_errors_after_one_signal_stay_what_they_are():
    with pytest.raises(TypeError), StopRequest():
        interrupt()
        raise TypeError
