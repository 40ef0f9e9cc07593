"""Confusion matrix and scores against scikit-learn."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics

from wsss_ray.core.values import IGNORE
from wsss_ray.ops.confusion import confusion, dense, scores, sparse


def draw(seed, num_labels, undecided=True):
    rng = np.random.default_rng(seed)
    true = rng.integers(0, num_labels + 1, (13, 17)).astype(np.uint8)
    true[true == num_labels] = IGNORE
    pred = rng.integers(0, num_labels + undecided, (13, 17)).astype(np.uint8)
    pred[pred == num_labels] = IGNORE
    return true, pred


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), num_labels=st.integers(2, 21))
def test_matrix_equals_scikit_learn(seed, num_labels):
    true, pred = draw(seed, num_labels)
    keep = true != IGNORE
    expected = metrics.confusion_matrix(true[keep], pred[keep], labels=[*range(num_labels), IGNORE])[:num_labels]
    matrix = confusion(true, pred, num_labels)
    assert matrix.dtype == np.int64
    assert (matrix == expected).all()
    cells, counts = sparse(matrix)
    assert all(isinstance(value, int) for value in cells + counts)
    assert (dense(cells, counts, num_labels) == matrix).all()
    assert (dense(cells * 2, counts * 2, num_labels) == 2 * matrix).all()


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), num_labels=st.integers(2, 9), undecided=st.booleans())
def test_scores_equal_scikit_learn(seed, num_labels, undecided):
    true, pred = draw(seed, num_labels, undecided)
    keep, labels = true != IGNORE, range(num_labels)
    found = scores(confusion(true, pred, num_labels))
    given_labels = {"labels": list(labels), "average": None}
    np.testing.assert_allclose(found.iou, metrics.jaccard_score(true[keep], pred[keep], **given_labels))
    np.testing.assert_allclose(found.precision, metrics.precision_score(true[keep], pred[keep], **given_labels))
    np.testing.assert_allclose(found.recall, metrics.recall_score(true[keep], pred[keep], **given_labels))
    assert found.miou == pytest.approx(np.mean(found.iou))
    assert found.accuracy == pytest.approx(metrics.accuracy_score(true[keep], pred[keep]))
    assert found.coverage == pytest.approx((pred[keep] != IGNORE).mean())


def test_which_labels_the_mean_is_over():
    true = np.array([[0, 0, 1, 1, 255]], np.uint8)
    pred = np.array([[0, 2, 1, 255, 3]], np.uint8)
    found = scores(confusion(true, pred, 4))
    # 2 is predicted but nowhere true: IoU 0, in the mean. 3 is only predicted where nothing is scored: out of it.
    assert found.iou[:3] == (0.5, 0.5, 0.0)
    assert math.isnan(found.iou[3])
    assert found.miou == pytest.approx(1 / 3)
    assert (found.coverage, found.accuracy) == (0.75, 0.5)
    assert math.isnan(found.recall[2])
    assert found.precision[1] == 1.0


def test_an_empty_matrix_has_no_scores_and_is_valid_json():
    found = scores(np.zeros((2, 3), np.int64))
    assert math.isnan(found.miou)
    plain = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert plain["iou"] == [None, None]
    assert plain["miou"] is None


def test_rejects_labels_and_sizes():
    ok = np.zeros((2, 2), np.uint8)
    with pytest.raises(ValueError, match=r"mask: label 2 is not allowed\. Use 0\.\.1 and 255"):
        confusion(ok + 2, ok, 2)
    with pytest.raises(ValueError, match="prediction: label 3 is not allowed"):
        confusion(ok, ok + 3, 2)
    with pytest.raises(ValueError, match="Resize it before scoring"):
        confusion(ok, ok[:1], 2)
    with pytest.raises(ValueError, match="cell 6"):
        dense([6], [1], 2)


def test_a_prediction_equal_to_the_number_of_labels_is_not_undecided():
    with pytest.raises(ValueError, match="prediction"):
        confusion(np.zeros((1, 1), np.uint8), np.full((1, 1), 2, np.uint8), 2)
