"""What fails is noted in a line, and the rest goes on."""

import errno

import pytest

from ce_align.errors import CeAlignError, DataError, explained, first_line, noted


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (DataError("three rows, expected four"), "three rows, expected four"),
        (KeyError("a"), "unexpected KeyError: 'a' (--debug shows where)"),
        (ValueError("one\ntwo"), "unexpected ValueError: one (--debug shows where)"),
        (MemoryError(), "not enough memory: use fewer images or a smaller layer"),
        (
            OSError(errno.ENOSPC, "No space", "a.npy"),
            "the disk is full (a.npy); free some space and run again",
        ),
    ],
)
def test_any_failure_is_noted_in_one_line_and_the_rest_is_done(error, text):
    failures, done = [], []
    for name in ("first", "second"):
        with noted(name, failures):
            if name == "first":
                raise error
            done.append(name)
    assert done == ["second"]
    ((what, found),) = failures
    assert (what, str(found)) == ("first", text)
    assert found is error or found.__cause__ is error


class Stopped(CeAlignError):
    exit_status = 130


@pytest.mark.parametrize("signal", [KeyboardInterrupt(), SystemExit(143), Stopped("")])
def test_what_asks_to_stop_is_not_noted(signal):
    failures = []
    with pytest.raises(type(signal)), noted("network", failures):
        raise signal
    assert not failures


def test_an_error_that_cannot_give_its_text_has_none():
    class Silent(Exception):
        def __str__(self):
            raise RuntimeError

    assert first_line(Silent()) == ""
    assert str(explained(Silent())) == "unexpected Silent (--debug shows where)"
