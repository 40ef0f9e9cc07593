"""Parts that do not go together are refused when the plan is made, before anything is trained."""

from __future__ import annotations

import typing

import pytest

from tests.local import job_of
from tests.shapes import tiny_job
from tests.tiny import tiny_job_of
from wsss_ray.cli import console
from wsss_ray.core import SeedRule
from wsss_ray.core.graph import Plan, Until, until
from wsss_ray.methods.deeplab import DeeplabSegmenter
from wsss_ray.methods.rrm import ReliableRegions, RrmSegmenter


def job_with(name, **parts):
    job = tiny_job_of(name)
    job["method"] |= parts
    return job_of(job)


@pytest.mark.parametrize(
    ("name", "parts", "message"),
    [
        (
            "cam",
            {"segmenter": {"kind": "rrm_segmenter"}},
            "rrm_segmenter makes its labels as it trains and takes no seeds. Use kind: "
            ".*deeplab_segmenter, .* or weighted_segmenter, or a method that makes no seeds.$",
        ),
        (
            "rrm",
            {"segmenter": {"kind": "deeplab_segmenter"}},
            "deeplab_segmenter learns from seeds, and this method makes none. Use kind: rrm_segmenter.$",
        ),
        (
            "multi_estimations",
            {"segmenter": {"kind": "deeplab_segmenter"}},
            r"learns from 1 set\(s\) of seeds, and this method makes 12. Use kind: weighted_segmenter.$",
        ),
        ("ficklenet", {"localizer": {"kind": "cam_localizer"}}, "needs a cam_classifier, not stochastic_classifier"),
        ("cam", {"localizer": {"kind": "stochastic_grad_cam"}}, "needs a stochastic_classifier, not cam_classifier"),
        ("mdc", {"localizer": {"kind": "cam_localizer"}}, "the classifier has several blocks. Use kind: dilated_cam"),
        ("mdc", {"localizer": {"kind": "dilated_cam", "blocks": [4]}}, r"blocks: \[4\], but the classifier has 4 blocks"),
    ],
)
def test_a_plan_refuses_what_does_not_fit(name, parts, message):
    with pytest.raises(ValueError, match=message):
        job_with(name, **parts).plan()


class NeedsSaliency(SeedRule):
    """A rule of somebody else, which has no background."""

    @property
    def needs_saliency(self):
        return True

    def seed(self, image_HWC, maps, saliency_HW):
        raise NotImplementedError


def test_a_rule_words_its_advice_for_a_job_without_saliency():
    mend = r"Set data\.saliency to their folder, or to {kind: u2net}, which makes them"
    for kind in ("threshold_seeds", "crf_seeds", "region_seeds"):
        rule = {"seed_rule": {"kind": kind, "background": {"kind": "saliency_background"}}}
        message = rf"{kind} needs saliency maps\. {mend}, or method\.seed_rule\.background to {{kind: cam_background}}\.$"
        with pytest.raises(ValueError, match=message):
            job_with("cam", **rule).plan()
    with pytest.raises(ValueError, match=rf"needs_saliency needs saliency maps\. {mend}\.$"):
        job_with("cam", seed_rule={"kind": "needs_saliency"}).plan()


def test_a_segmenter_that_fits_is_taken():
    assert job_with("multi_estimations", extra=[], localizers=[{"kind": "cam_localizer"}]).plan().targets
    assert job_with("cam", segmenter={"kind": "weighted_segmenter"}).plan().targets


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: DeeplabSegmenter(input_scales=(0.5, 1.0)), "must begin with 1.0"),
        (lambda: RrmSegmenter(scales=(0.5, 1.0, 1.5, 2.0)), "must begin with 1.0"),
        (lambda: RrmSegmenter.model_validate({"labels": {"kind": "threshold_seeds"}}), "have no saliency map"),
    ],
)
def test_a_part_refuses_what_it_cannot_do(make, message):
    with pytest.raises(ValueError, match=message):
        make()
    assert isinstance(RrmSegmenter().labels, ReliableRegions)


def test_the_command_line_offers_the_kinds_at_which_a_plan_can_be_cut():
    offered, _ = typing.get_args(console.Until)  # the type and the option
    assert offered == Until | None


@pytest.mark.parametrize(("name", "kind"), [("rrm", "seed"), ("deeplab", "localize"), ("noisy_masks", "localize")])
def test_until_a_stage_that_is_not_there_is_a_mistake(name, kind):
    plan = job_of(tiny_job_of(name)).plan()
    with pytest.raises(ValueError, match=f"--until {kind}: this method has no such stage. Choose another"):
        until(plan.targets, kind)
    assert Plan.of(until(job_of(tiny_job()).plan().targets, "seed")).stages
