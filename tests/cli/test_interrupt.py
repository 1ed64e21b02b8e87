"""Ctrl-C between two steps."""

import signal

import pytest

from magnetar.cli.interrupt import between_steps


def test_the_first_ctrl_c_waits_for_the_step_to_end_and_the_second_does_not() -> None:
    before = signal.getsignal(signal.SIGINT)
    done = []

    def work() -> None:
        with between_steps() as stopped:
            assert not stopped()
            signal.raise_signal(signal.SIGINT)
            done.append("the step")
            assert stopped()
            signal.raise_signal(signal.SIGINT)
            done.append("never")

    with pytest.raises(KeyboardInterrupt):
        work()
    assert done == ["the step"]
    assert signal.getsignal(signal.SIGINT) is before
