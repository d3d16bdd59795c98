import pickle
import sys
from pathlib import Path

import numpy as np
import pytest

from ce_align.errors import ConfigError, DataError
from ce_align.foreign import guard, guarded, quiet_stdout


def half(number):
    if number < 0:
        sys.exit("no roots here")
    return number / 2


@pytest.mark.parametrize("error", [SystemExit(0), GeneratorExit(), BaseException("x")])
def test_code_of_others_cannot_end_the_program(error):
    def ends():
        raise error

    place = f"{Path(__file__).name}, line {ends.__code__.co_firstlineno + 1}"
    with pytest.raises(DataError, match=rf"{place}\): {type(error).__name__}"):
        guarded(ends, "mine", object)()


@pytest.mark.parametrize(
    "error", [KeyboardInterrupt(), MemoryError(), ConfigError("x"), OSError(28, "full")]
)
def test_what_is_not_the_fault_of_others_passes(error):
    with pytest.raises(type(error)) as found, guard("mine"):
        raise error
    assert found.value is error


def test_a_failure_inside_a_library_is_placed_in_the_file_of_the_user_that_called_it():
    def inverse():
        return np.linalg.inv(np.zeros((2, 2)))

    with pytest.raises(DataError, match=rf"{Path(__file__).name}.*LinAlgError: Sing"):
        guarded(inverse, "mine", np.ndarray)()


def test_what_is_returned_is_checked_by_type_or_by_a_function_of_the_arguments():
    assert guarded(half, "mine", float)(4) == 2
    with pytest.raises(DataError, match="mine returned float, expected str"):
        guarded(half, "mine", str)(4)
    assert guarded(half, "mine", lambda found, number: (found, number))(4) == (2, 4)


def test_a_guarded_function_goes_to_other_processes_and_keeps_its_name():
    found = pickle.loads(pickle.dumps(guarded(half, "mine", float)))
    assert found.__name__ == "half"
    with pytest.raises(DataError, match="SystemExit: no roots here"):
        found(-1)


def test_what_others_print_is_readable_lines_on_standard_error(capsys):
    with quiet_stdout():
        print("plain", 3)
        with quiet_stdout():
            print("\x1b[2J" * 1000)
        for k in range(1000):
            print(k, end="\r")
    out, err = capsys.readouterr()
    plain, escaped, unended = err.splitlines()
    assert (out, plain, len(escaped)) == ("", "plain 3", 400)
    assert escaped.startswith(r"\x1b[2J\x1b[2J")
    assert unended.startswith(r"0\r1\r2\r")
    assert len(unended) == 400
