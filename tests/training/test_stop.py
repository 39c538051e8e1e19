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
    """Python ignores it in a destructor and in a callback of C."""
    with pytest.raises(KeyboardInterrupt), StopRequest():
        interrupt()
        with suppress(KeyboardInterrupt):
            interrupt()


def test_a_second_ctrl_c_counts_if_a_library_turns_it_into_its_own_error():
    """torch did so while it read a file of weights, which was then reported as damaged."""
    with pytest.raises(KeyboardInterrupt) as caught, StopRequest():
        interrupt()
        try:
            interrupt()
        except KeyboardInterrupt:
            raise TypeError("could not determine the shape") from None
    assert isinstance(caught.value.__cause__, TypeError)


def test_errors_after_one_signal_are_not_changed():
    with pytest.raises(TypeError), StopRequest():
        interrupt()
        raise TypeError
