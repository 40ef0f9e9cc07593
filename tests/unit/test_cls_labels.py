"""Tag vectors from .npy pickles, read without unpickling."""

from __future__ import annotations

import io
import pickle
import pickletools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wsss_ray.data.cls_labels import read_cls_labels

TAGS = {"2007_000032": (0, 14), "2011_003276": (3,), "2008_000008": ()}


def table(kind):
    def key(image_id):
        return image_id if kind is str else kind(image_id.replace("_", ""))

    return {key(image_id): np.isin(np.arange(20), tags).astype(np.float32) for image_id, tags in TAGS.items()}


def npy(value):
    buffer = io.BytesIO()
    np.save(buffer, value, allow_pickle=True)
    return buffer.getvalue()


def with_pickle(body):
    data = npy({})
    return data[: 10 + int.from_bytes(data[8:10], "little")] + body


@pytest.mark.parametrize("kind", [str, np.int32, np.int64, int])
def test_what_numpy_writes(kind):
    assert read_cls_labels(npy(table(kind))) == TAGS


@pytest.mark.parametrize("kind", [str, np.int32])
@pytest.mark.parametrize("protocol", [2, 3, 4])
@pytest.mark.parametrize("slim", [False, True], ids=["plain", "optimised"])
def test_all_protocols(kind, protocol, slim):
    body = pickle.dumps(np.array(table(kind)), protocol=protocol)
    assert read_cls_labels(with_pickle(pickletools.optimize(body) if slim else body)) == TAGS


@pytest.mark.parametrize("dtype", ["float64", "uint8", "int64", "bool", ">f4"])
def test_other_number_types(dtype):
    assert read_cls_labels(npy({"a": np.array([0, 1, 0, 1], dtype)})) == {"a": (1, 3)}


def test_names_of_old_and_new_numpy():
    body = pickle.dumps(np.array(table(str)), protocol=2)
    new, old = b"numpy._core.multiarray", b"numpy.core.multiarray"
    assert new in body or old in body
    assert read_cls_labels(with_pickle(body.replace(new, old))) == TAGS
    assert read_cls_labels(with_pickle(body.replace(new, old).replace(old, new))) == TAGS


class Call:
    """Pickles to the call of any function."""

    def __init__(self, function, *args):
        self.call = (function, args)

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_malice_is_refused_and_not_executed(tmp_path, protocol):
    victim = tmp_path / "executed"
    value = {"2007_000032": np.ones(20, np.float32), "x": Call(exec, f"open({str(victim)!r}, 'w').close()")}
    body = pickle.dumps(np.array(value), protocol=protocol)
    pickle.loads(body)
    assert victim.exists()  # the weapon works
    victim.unlink()
    with pytest.raises(ValueError, match="refused"):
        read_cls_labels(with_pickle(body))
    assert not victim.exists()


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "not a .npy"),
        (b"PK\x03\x04 a zip archive", "not a .npy"),
        (npy(np.zeros(3)), "holds an array"),
        (npy(np.array([{}, {}], object)), "holds an array"),
        (npy([1, 2]), "holds an array"),
        (with_pickle(pickle.dumps(np.array("text", object), 4)), "does not hold a dict"),
        (npy({"a": "text"}), "entry of 'a'"),
        (npy({"a": np.zeros((2, 2))}), "entry of 'a'"),
        (npy({("a", "b"): np.zeros(2)}), "neither text nor an integer"),
        (npy({"a": np.array(["x"])}), "pickle"),
        (with_pickle(b""), "pickle"),
        (with_pickle(b"\x80\x04)R."), "pickle"),
        (b"\x93NUMPY\x01\x00\xff\xff" + b"(" * 70_000, "too long"),
    ],
)
def test_anything_else_is_refused(data, message):
    with pytest.raises(ValueError, match=message):
        read_cls_labels(data)


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), max_size=4), st.floats(0, 1))
def test_damage_is_read_or_refused(changes, keep):
    data = bytearray(npy(table(np.int32)))
    for place, value in changes:
        data[int(place * (len(data) - 1))] = value
    try:
        found = read_cls_labels(bytes(data[: round(len(data) * keep)]))
    except ValueError:
        return
    assert all(isinstance(key, str) and isinstance(tags, tuple) for key, tags in found.items())
