"""Settings for a budget of time: durations, the ladder of settings, what is chosen of it, and the job that is written."""

from __future__ import annotations

import os
import re
from dataclasses import replace
from itertools import pairwise

import pytest
import yaml

from tests.photos import class_folders, init, with_masks
from wsss_ray.config.job import load_job
from wsss_ray.nets.u2net import packaged
from wsss_ray.preflight.survey import survey as survey_module
from wsss_ray.preflight.survey.budget import by_preset, duration
from wsss_ray.preflight.survey.ladder import ladder, longest_that_fits, words, worse
from wsss_ray.preflight.survey.sizes import Machine, sizes_for
from wsss_ray.preflight.survey.survey import survey
from wsss_ray.preflight.survey.write import composed

LAPTOP, GPUS = Machine(2, 16e9), Machine(32, 128e9, (80e9,))


def sizes_of(machine=LAPTOP, num_images=1552, side=320, saliency=256):
    return replace(sizes_for(machine, [side], num_images), saliency=saliency)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90s", 90), ("10m", 600), ("1h30m", 5400), ("2h", 7200), ("1h1m1s", 3661), (" 5m ", 300), ("120m", 7200)],
)
def test_a_duration(text, seconds):
    assert duration(text) == seconds


@pytest.mark.parametrize("text", ["", "10", "m", "0m", "10 m", "1.5h", "-5m", "30m1h", "5d", "1h1h", "10m\n10s", "9" * 20 + "s"])
def test_what_is_no_duration_is_one_line(text):
    with pytest.raises(ValueError, match=r"^--budget .*: is not a duration\. Give .* 1h30m or 2h\.$") as caught:
        duration(text)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("saliency", [256, None])
@pytest.mark.parametrize("machine", [LAPTOP, GPUS])
@pytest.mark.parametrize(("num_images", "side"), [(18, 320), (1552, 320), (50_000, 500), (200, 100), (3, 20)])
def test_each_rung_is_less_work_than_the_last(machine, num_images, side, saliency):
    usual = sizes_of(machine, num_images, side, saliency)
    rungs = ladder(usual, num_images)
    assert usual in rungs[:2], "what init writes without options is the best, or next to it"
    assert len(set(rungs)) == len(rungs) >= 2
    work = [(one.side**2, one.epochs, one.saliency or 0, not one.plain) for one in rungs]
    for before, after in pairwise(work):
        assert all(low <= high for low, high in zip(after, before, strict=True)), (before, after)
    assert rungs[-1].plain
    assert rungs[-1].saliency is None
    assert all(one.epochs * num_images >= min(usual.epochs * num_images, 1_000) - num_images for one in rungs)
    assert all(one.side >= min(usual.side, max(128, 12 * one.stride)) and one.stride == usual.stride for one in rungs)
    assert worse(rungs[0], rungs[0]) == []
    assert all(worse(one, rungs[0]) for one in rungs[1:] if one != rungs[0])


def test_less_time_goes_where_it_costs_least():
    """On benchmarks/voc_animals, 192 pixels have the seeds of 256; 2 epochs of the segmenter a third less mIoU than 4."""
    rungs = ladder(sizes_of(), 1552)
    assert [(one.side, one.stride, one.epochs, one.label_epochs) for one in rungs] == [
        *[(256, 16, 8, 4)] * 2, (192, 16, 8, 4), (192, 16, 4, 4), *[(192, 16, 2, 4)] * 2,
    ]  # fmt: skip
    assert worse(rungs[3], rungs[0])[1] == "fewer epochs of the classifier (4, not 8): it learns less"
    trained = ladder(sizes_of(GPUS), 20_000)
    assert trained[-1].label_epochs < trained[0].label_epochs, "a whole ResNet is trained on a GPU, so its epochs cost"


def test_what_was_measured_is_the_best():
    best, *_ = ladder(sizes_of(num_images=20_000), 20_000)
    assert (best.side, best.epochs, best.label_epochs, best.saliency) == (256, 8, 4, 256), "benchmarks/voc_animals"
    assert words(best) == "images of 256 pixels, saliency at 256 pixels, 8 epochs of the classifier and 4 of the segmenter"


def test_the_best_that_fits_is_found_with_few_trials():
    rungs = ladder(sizes_of(), 1552)
    seconds = {one: 100.0 * (len(rungs) - place) for place, one in enumerate(rungs)}
    for place, one in enumerate(rungs):
        tried = []

        def of(sizes, tried=tried):
            tried.append(sizes)
            return seconds[sizes]

        assert longest_that_fits(rungs, of, seconds[one]) == one
        assert longest_that_fits(rungs, of, seconds[one] + 99) == one
        assert len(tried) <= 10
        assert place > 0 or tried == [one, one], "nothing else is tried if the best fits"
    assert longest_that_fits(rungs, seconds.__getitem__, 99) is None
    assert longest_that_fits(rungs[:1], seconds.__getitem__, 99) is None


@pytest.mark.parametrize("machine", [LAPTOP, GPUS])
def test_every_rung_is_a_job_that_plans(tmp_path, machine):
    found = survey(with_masks(tmp_path / "pets"), machine=machine)
    for saliency in (None, *([256] if packaged() else [])):
        usual = sizes_of(machine, found.num_train, 320, saliency)
        for sizes in ladder(usual, found.num_train):
            with composed(found, tmp_path / "job.yaml", sizes) as job:
                names = [stage.name for stage in job.plan()]
                assert ("saliency" in names) == (sizes.saliency is not None)
                assert ("retrain" in names) == (sizes.saliency is None and not sizes.plain)
                assert job.method.classifier.augment.size == sizes.side
                assert job.data.max_side == sizes.max_side


def test_presets_say_what_they_choose(tmp_path):
    root, out = class_folders(tmp_path / "pets"), tmp_path / "job.yaml"
    init(root, "--out", out)
    usual = out.read_text()
    said = init(root, "--out", out, "--preset", "best", "--force")
    assert "settings  --preset best: images of 128 pixels" in said
    assert yaml.safe_load(out.read_text()) == yaml.safe_load(usual), "12 images are seen 60 times as it is"
    said = init(root, "--out", out, "--preset", "quick", "--force")
    assert "settings  --preset quick: images of 128 pixels, no saliency" in said
    assert "worse for it: " in said
    assert "# worse for it: " in out.read_text()
    assert load_job(out).method.seed_rule.kind() == "threshold_seeds"
    init(root, "--out", out, "--force")
    assert out.read_text() == usual


def test_without_the_package_of_saliency_the_best_says_what_is_missing(tmp_path, monkeypatch):
    monkeypatch.setattr(survey_module, "packaged", lambda: None)  # as on a machine that lacks it
    found = survey(class_folders(tmp_path / "pets"), machine=LAPTOP)
    chosen = by_preset(found, "best")
    assert chosen.sizes.saliency is None
    assert chosen.worse == ("no saliency: on photographs it scores best. Run pip install 'wsss-ray[saliency]', then init again",)
    assert by_preset(found, "quick").sizes.plain


def test_mistakes_are_one_line_and_write_nothing(tmp_path):
    root, out = class_folders(tmp_path / "pets"), tmp_path / "job.yaml"
    assert init(root, "--out", out, "--budget", "soon", code=2).startswith("error: --budget 'soon': is not a duration. Give ")
    assert init(root, "--out", out, "--budget", "5m", "--preset", "best", code=2).startswith(
        "error: --preset: goes without --budget"
    )
    assert os.listdir(tmp_path) == ["pets"]


@pytest.mark.slow
def test_a_budget_that_is_too_small_is_refused(tmp_path):
    root, out = class_folders(tmp_path / "pets", each=2), tmp_path / "job.yaml"
    said = init(root, "--out", out, "--budget", "1s", code=2)
    (line,) = [line for line in said.splitlines() if line.startswith("error: ")]
    told = re.fullmatch(
        r"error: --budget 1s: the smallest job for these 4 images takes about (\d+) (s|min) on this machine .*", line
    )
    assert told, line
    assert not out.exists()


def test_a_budget_is_kept(tmp_path):
    root, out = class_folders(tmp_path / "pets", each=2), tmp_path / "job.yaml"
    said = init(root, "--out", out, "--budget", "5h")
    assert re.search(r"settings  --budget 5h: about \d+ (s|min) of 5 h 00 min on this machine, with images of 128 pixels", said)
    assert "worse for it" not in said, "the best fits"
    init(root, "--out", tmp_path / "best.yaml", "--preset", "best")
    best, chosen = (yaml.safe_load(path.read_text()) for path in (tmp_path / "best.yaml", out))
    assert chosen == best
