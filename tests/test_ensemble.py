from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from pipeline.base.errors import MismatchError
from pipeline.records.predictions import Predictions
from pipeline.stages.ensemble import blend, partial_note


def make(ids, probs, fold=None, **meta):
    values = np.array([[p, 1 - p] for p in probs], dtype=np.float32)
    fold = None if fold is None else np.array(fold, dtype=np.int64)
    meta = {"task": "t", "form": "probs", "folds_hash": "f", **meta}
    return Predictions(np.array(ids, dtype=object), ("cat", "dog"), values, fold, meta)


def member(oof, test, **meta):
    return make(["a", "b"], oof, [0, 1], **meta), make(["x", "y"], test, **meta)


A, B = member([0.2, 0.4], [0.1, 0.3]), member([0.6, 0.8], [0.5, 0.7])


def test_oof_and_test_travel_together_by_id():
    shuffled = (B[0].aligned_to(["b", "a"]), B[1].aligned_to(["y", "x"]))
    mean = blend({"A": A, "B": shuffled})
    assert mean.oof is not None
    assert mean.test is not None
    np.testing.assert_allclose(mean.oof.values[:, 0], [0.4, 0.6], rtol=1e-6)
    np.testing.assert_allclose(mean.test.values[:, 0], [0.3, 0.5], rtol=1e-6)
    assert (mean.weights, mean.notes) == ({"A": 0.5, "B": 0.5}, ())


def test_weights_go_by_name_and_are_scaled():
    mean = blend({"A": A, "B": B}, weights={"B": 1.0, "A": 3.0})
    assert mean.oof is not None
    np.testing.assert_allclose(mean.oof.values[:, 0], [0.3, 0.5], rtol=1e-6)
    assert mean.weights == {"A": 0.75, "B": 0.25}


def test_geometric_blends_sum_to_one():
    mean = blend({"A": A, "B": B}, "geometric")
    assert mean.test is not None
    np.testing.assert_allclose(mean.test.values.sum(axis=1), 1, rtol=1e-6)
    p, q = np.sqrt(0.1 * 0.5), np.sqrt(0.9 * 0.5)
    assert mean.test.values[0, 0] == pytest.approx(p / (p + q), rel=1e-5)


def test_blends_nest():
    inner = blend({"A": A, "B": B})
    outer = blend({"inner": (inner.oof, inner.test), "A": A})
    assert outer.test is not None
    np.testing.assert_allclose(outer.test.values[:, 0], [0.2, 0.4], rtol=1e-6)


def test_a_partial_run_blends_its_test_predictions_only():
    part = member([0.6, 0.8], [0.5, 0.7], partial="2 of 5 folds")
    mean = blend({"A": A, "B": part})
    assert mean.oof is None
    assert mean.test is not None
    np.testing.assert_allclose(mean.test.values[:, 0], [0.3, 0.5], rtol=1e-6)
    assert mean.notes == ("no OOF of the blend: B has 2 of 5 folds",)
    assert partial_note((mean.oof, mean.test)) == "B: 2 of 5 folds"


def test_no_weights_hold_for_a_partial_run():
    part = member([0.6, 0.8], [0.5, 0.7], partial="2 of 5 folds")
    with pytest.raises(MismatchError, match="B: has 2 of 5 folds only, so no weights hold for it"):
        blend({"A": A, "B": part}, weights={"A": 1, "B": 2})


def test_what_a_member_lacks_is_missing_and_noted():
    mean = blend({"A": A, "refit": (None, B[1])})
    assert mean.oof is None
    assert mean.test is not None
    assert mean.notes == ("no OOF of the blend: refit has none",)
    assert blend({"A": (A[0], None), "B": B}).notes == ("no test predictions of the blend: A has none",)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"meta": {"task": "u"}}, "A and B do not belong together: task 't' against 'u'"),
        ({"meta": {"folds_hash": "g"}}, "A and B do not belong together: folds hash 'f' against 'g'"),
        ({"names": ("cat", "emu")}, r"A and B do not belong together: other columns \(only in the first: dog"),
        ({"names": ("dog", "cat")}, "the same names in another order"),
        ({"ids": np.array(["a", "z"], dtype=object)}, r"B against A: .*1 missing \(ids b\), 1 extra \(ids z\)"),
        ({"fold": np.array([1, 0])}, "A and B do not belong together: other folds for ids a, b"),
    ],
)
def test_members_that_do_not_belong_together_are_both_named(change, message):
    with pytest.raises(MismatchError, match=message):
        blend({"A": A, "B": (replace(B[0], **change), B[1])})


def test_a_member_is_compared_even_where_the_other_lacks_that_part():
    other = replace(B[0], meta={"folds_hash": "g"})
    with pytest.raises(MismatchError, match="A and B do not belong together: folds hash"):
        blend({"A": (None, A[1]), "B": (other, None)})


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ({"A": 1, "C": 1}, "weights name 'C', which is no member"),
        ({"A": 1}, "weights are missing for B"),
        ({"A": 0, "B": 0}, "weights must be numbers >= 0 with a positive sum"),
        ({"A": -1, "B": 2}, "weights must be numbers >= 0 with a positive sum"),
        ({"A": float("nan"), "B": 2}, "weights must be numbers >= 0 with a positive sum"),
    ],
)
def test_impossible_weights_are_refused(weights, message):
    with pytest.raises(MismatchError, match=message):
        blend({"A": A, "B": B}, weights=weights)


def test_a_blend_of_nothing_is_refused():
    with pytest.raises(MismatchError, match="at least one run"):
        blend({})
