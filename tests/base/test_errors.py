"""What is raised becomes one line, and asks to stop or does not."""

import errno

import pytest
from pydantic import BaseModel, PositiveInt, ValidationError

from ce_align.errors import ConfigError, DataError, explained, first_line


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
def test_any_failure_is_explained_in_one_line(error, text):
    found = explained(error)
    assert str(found) == text
    assert found is error or found.__cause__ is error


def test_a_wrong_setting_is_explained_in_one_line():
    class Settings(BaseModel):
        splits: PositiveInt

    with pytest.raises(ValidationError) as caught:
        Settings(splits=0)
    found = explained(caught.value)
    assert isinstance(found, ConfigError)
    assert str(found) == "splits: Input should be greater than 0, found 0"


def test_an_error_that_cannot_give_its_text_has_none():
    class Silent(Exception):
        def __str__(self):
            raise RuntimeError

    assert first_line(Silent()) == ""
    assert str(explained(Silent())) == "unexpected Silent (--debug shows where)"
