import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from ce_align.digests import (
    combine_digests,
    digest_array,
    digest_bytes,
    digest_json,
)

ARRAYS = npst.arrays(
    dtype=st.sampled_from(["u1", "i4", "f4", "f8"]),
    shape=npst.array_shapes(min_dims=1, max_dims=3, max_side=4),
)


@given(ARRAYS)
def test_digest_of_array_ignores_memory_layout(array):
    assert digest_array(array) == digest_array(np.asfortranarray(array))


@given(ARRAYS)
def test_digest_of_array_sees_type_and_shape(array):
    assert digest_array(array) != digest_array(array.astype("c16"))
    assert digest_array(array) != digest_array(array[np.newaxis])


def test_a_scalar_is_not_an_array_of_one():
    assert digest_array(np.array(1.0)) != digest_array(np.array([1.0]))


def test_digest_of_array_sees_one_changed_value():
    array = np.zeros((3, 4))
    changed = array.copy()
    changed[2, 3] = np.nextafter(0, 1)
    assert digest_array(array) != digest_array(changed)


def test_digest_of_json_ignores_the_order_of_keys():
    assert digest_json({"a": 1, "b": [2]}) == digest_json({"b": [2], "a": 1})
    assert digest_json({"a": 1}) != digest_json({"a": 2})


def test_combined_digest_sees_order():
    a, b = digest_bytes(b"a"), digest_bytes(b"b")
    assert combine_digests(a, b) != combine_digests(b, a)
