"""The situations of situations.py, which prints them as a table: what is said in each, and that nothing is lost."""

import pytest

from situations import SITUATIONS, tried


@pytest.fixture(autouse=True)
def handlers():
    """What signals mean is the caller's business again afterwards."""
    import signal

    numbers = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
    before = {number: signal.signal(number, signal.SIG_DFL) for number in numbers}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("one", SITUATIONS, ids=[one.what for one in SITUATIONS])
def test_it_is_said_and_nothing_is_lost(one, tmp_path):
    outcome = tried(one, tmp_path)
    assert outcome.right, f"said: {outcome.said}; lost: {outcome.lost or 'nothing'}"


def test_each_situation_has_a_name_of_its_own():
    assert len({one.what for one in SITUATIONS}) == len(SITUATIONS) > 40
