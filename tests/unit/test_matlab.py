"""The reader of MATLAB files, held to scipy's, and to files that claim what they do not hold."""

from __future__ import annotations

import io

import numpy as np
import pytest
from scipy.io import loadmat, savemat

from tests.fuzz.corpus import packed_mat, sbd_contents
from tests.fuzz.hostile import mat_files
from wsss_ray.data.matlab import read_field


def saved(value, *, compress=True, **others):
    buffer = io.BytesIO()
    savemat(buffer, {"first": np.arange(3), "GTcls": {"Boundaries": np.ones((2, 1)), "Segmentation": value, **others}},
            do_compression=compress)  # fmt: skip
    return buffer.getvalue()


@pytest.mark.parametrize("compress", [True, False])
@pytest.mark.parametrize("kind", ["u1", "i1", "u2", "i4", "u8", "f4", "f8"])
def test_what_scipy_reads(compress, kind):
    value = np.random.default_rng(0).integers(0, 21, (7, 5)).astype(kind)
    data = saved(value, compress=compress, More={"Segmentation": np.zeros((1, 1))}, cells=np.array([[1, "a"]], dtype=object))
    found = read_field(data, "GTcls", "Segmentation")
    theirs = loadmat(io.BytesIO(data))["GTcls"]["Segmentation"][0, 0]
    assert found.dtype == theirs.dtype
    np.testing.assert_array_equal(found, theirs)
    np.testing.assert_array_equal(found, value)


def test_a_small_matrix_stands_in_its_tag():
    assert read_field(saved(np.array([[3]], np.uint8)), "GTcls", "Segmentation").tolist() == [[3]]


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "no MATLAB file of version 5"),
        (b"x" * 200, "no MATLAB file of version 5"),
        (saved(np.zeros((3, 4), np.uint8))[:-1], "damaged data|cut short"),
        (saved(np.zeros((3, 4), np.uint8), compress=False)[:-9], "cut short"),
        (saved(np.zeros((3, 4), np.uint8)).replace(b"MATLAB", b"matlab")[:128], "no structure GTcls"),
        (saved(np.zeros((3, 4), complex)), "no matrix of real numbers"),
        (saved(np.array([["a"]], dtype=object)), "no matrix of real numbers|a matrix of"),
        (packed_mat(sbd_contents()[0].replace(b"Segmentation", b"segmentation")), "no field Segmentation"),
    ],
)
def test_what_is_no_mask_is_said(data, said):
    with pytest.raises(ValueError, match=said):
        read_field(data, "GTcls", "Segmentation")


@pytest.mark.parametrize("number", range(len(mat_files())))
def test_hostile_files_are_refused(number):
    with pytest.raises(ValueError, match=r"^[a-z].{3,80}$"):
        read_field(mat_files()[number], "GTcls", "Segmentation")
