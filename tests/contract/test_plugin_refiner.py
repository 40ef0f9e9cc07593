"""A package of somebody else adds a method with a network, a refiner and an extra input, and touches nothing of this one."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest
import yaml
from PIL import Image

from tests.plugged import TOY, environment, write_distribution

LIKENESS = '''
"""Likeness: a network learns which parts of an image look alike, and seeds spread over such parts."""

from typing import ClassVar, Literal

from wsss_ray.core import Adam, Data, Learner, Localizer, Method, Refiner, SeedRule
from wsss_ray.core import evaluate_seeds, localize, refine, seed, train, SeedScore
from wsss_ray.methods.cam import CamClassifier, CamLocalizer
from wsss_ray.methods.common.seed_rules import ThresholdSeeds


class LikenessNet(Learner):
    """A pixel is an object or background, by its colour; learned from seeds."""

    def build(self, num_classes):
        from torch import nn

        return nn.Sequential(nn.Conv2d(3, 8, 1), nn.ReLU(), nn.Conv2d(8, 1, 1))

    def loss(self, net, batch):
        import torch

        score_BHW = net(batch.image_BCHW / 255)[:, 0]
        label_BHW = batch.seeds_BEHW[:, 0]
        each_BHW = torch.nn.functional.binary_cross_entropy_with_logits(score_BHW, (label_BHW > 0).float(), reduction="none")
        return {"likeness": (each_BHW * (label_BHW != 255)).mean(dim=(1, 2))}


class Spread(Refiner):
    """Give each part the label of the image's tag if its mean score says object, else background."""

    makes: ClassVar[Literal["maps", "seeds"]] = "seeds"

    @property
    def reads(self):
        return ("seeds", "model", "parts")

    def refine(self, net, given):
        import numpy as np
        import torch

        with torch.inference_mode():
            image = torch.from_numpy(given.image_HWC).permute(2, 0, 1)[None].float() / 255
            score_HW = net(image)[0, 0].numpy()
        label_HW, parts = np.zeros_like(given.seed_HW), given.extra["parts"]
        for part in np.unique(parts):
            if score_HW[parts == part].mean() > 0:
                label_HW[parts == part] = given.classes[0] + 1
        return label_HW


class Likeness(Method):
    """Classifier, maps, seeds, a second network, better seeds."""

    classifier: Learner = CamClassifier()
    localizer: Localizer = CamLocalizer()
    seed_rule: SeedRule = ThresholdSeeds()
    likeness: Learner
    spread: Refiner = Spread()

    def plan(self, data: Data):
        classifier = train(self.classifier, data.weak, name="classifier")
        seeds = seed(self.seed_rule, localize(self.localizer, classifier, data.weak), data.weak)
        likeness = train(self.likeness, data.weak, seeds=(seeds,), name="likeness")
        spread = refine(self.spread, data.weak, seeds=seeds, model=likeness, extra=data.extra, name="spread")
        return [evaluate_seeds(SeedScore(), spread, data.weak)]
'''

RUN = """
import json, sys
from tests.local import run_plan
from wsss_ray.config.planning import plan
planned = plan(sys.argv[1], store=sys.argv[2])
run_plan(planned.store, planned.plan)
record = planned.store.record(planned.plan.stages[-1])
print(json.dumps({"stages": [stage.name for stage in planned.plan], "miou": record["metrics"]["miou"]}))
"""


@pytest.fixture
def site(tmp_path):
    write_distribution(tmp_path / "site", "toy-parts", "1.2", "toy_parts", TOY)
    return write_distribution(tmp_path / "site", "likeness", "0.1", "likeness.likeness", LIKENESS)


def test_a_network_a_refiner_and_an_extra_input_of_a_plug_in(site, tmp_path):
    parts = tmp_path / "parts"
    parts.mkdir()
    for number in range(8):
        part_HW = np.zeros((32, 32), np.uint16)
        part_HW[8:24, 8 : 24 - 8 * (number % 2)] = 700  # the object, exactly
        Image.fromarray(part_HW).save(parts / f"weak-{number}.png")
    training = {"batch_size": 4, "epochs": None, "augment": {"kind": "random_crop", "size": 32}}
    training |= {"optimizer": {"kind": "adam", "lr": 0.05}}
    trunk = {"trunk": {"kind": "toy_net"}, "hidden": 16, "steps": 2}
    job = {
        "name": "likeness",
        "method": {
            "name": "likeness",
            "classifier": training | trunk,
            "localizer": {"size": None},
            "seed_rule": {"theta": 0.3, "crf": None, "background": {"kind": "cam_background", "threshold": 0.1}},
            "likeness": training | {"kind": "likeness_net", "steps": 60},
        },
        "data": {"kind": "toy_images", "extra": [{"name": "parts", "folder": str(parts)}]},
    }
    path = tmp_path / "likeness.yaml"
    path.write_text(yaml.safe_dump(job))
    command = [sys.executable, "-c", RUN, str(path), str(tmp_path / "runs")]
    done = subprocess.run(command, env=environment(site), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["stages"] == ["images-weak", "parts", "classifier", "maps", "seeds", "likeness", "spread", "seed_quality"]
    assert 0 < found["miou"] <= 1
    job["data"].pop("extra")
    path.write_text(yaml.safe_dump(job))
    command = [sys.executable, "-m", "wsss_ray", "plan", str(path)]
    done = subprocess.run(command, env=environment(site), capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "spread reads parts, and there is none. Set data.extra to [{name: parts, folder: FOLDER}]" in done.stderr
