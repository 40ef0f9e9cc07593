"""A module of one's own as a trunk: what it gives, what it refuses, and that Ray's workers know it from a script."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import torch
from torch import nn

from wsss_ray.nets.wrapped import ModuleTrunk

ROOT = Path(__file__).parents[2]


def patches(channels=6):
    return nn.Sequential(nn.Conv2d(3, channels, 8, stride=8), nn.GELU())


def test_features_lie_in_the_middle_of_patches():
    trunk = ModuleTrunk(patches(), stride=8)
    assert (trunk.channels, trunk.stride, trunk.alignment) == (6, 8, "cell")
    assert trunk.centres(64) == (3.5, 8.0)
    image_BCHW = torch.rand(2, 3, 60, 33) * 255
    features = trunk(image_BCHW)
    assert features.shape == (2, 6, 8, 5)
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in ((123.675, 116.28, 103.53), (58.395, 57.12, 57.375)))
    padded = nn.functional.pad((image_BCHW - mean) / std, (0, 7, 0, 4))
    torch.testing.assert_close(features, trunk.net(padded), rtol=1e-6, atol=1e-6)


def test_features_of_padded_convolutions_lie_at_the_corners():
    net = nn.Sequential(nn.Conv2d(3, 4, 3, stride=2, padding=1), nn.ReLU(), nn.Conv2d(4, 5, 3, stride=2, padding=1))
    trunk = ModuleTrunk(net, stride=4, mean=(0, 0, 0), std=(1, 1, 1))
    assert (trunk.channels, trunk.centres(33)) == (5, (0.0, 4.0))
    image_BCHW = torch.rand(1, 3, 33, 33)
    assert trunk(image_BCHW).shape == (1, 5, 9, 9)
    torch.testing.assert_close(trunk(image_BCHW), net(image_BCHW))
    assert ModuleTrunk(net, stride=4, alignment="cell").centres(33) == (1.5, 4.0)


def test_no_statistics_cross_images_and_nothing_unused_is_trained():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.Dropout(0.5))
            self.unused = nn.Linear(4, 4)

        def forward(self, x):
            return self.body(x)

    trunk = ModuleTrunk(Net(), stride=1).train()
    assert trunk.training
    assert not any(module.training for module in trunk.net.modules())
    names = [name for name, parameter in trunk.named_parameters() if parameter.requires_grad]
    assert names == ["net.body.0.weight", "net.body.0.bias"]
    image_BCHW = torch.rand(2, 3, 9, 9) * 255
    torch.testing.assert_close(trunk(image_BCHW)[:1], trunk(image_BCHW[:1]))


@pytest.mark.parametrize(
    ("net", "stride", "said"),
    [
        (patches(), 4, r"an image of 17 x 17 has features \(1, 6, 2, 2\), not \(1, channels, 5, 5\) at stride 4"),
        (nn.Sequential(patches(), nn.AdaptiveAvgPool2d(1)), 8, r"features \(1, 6, 1, 1\)"),
        (nn.Sequential(patches(), nn.Flatten()), 8, r"features \(1, 150\)"),
    ],
)
def test_a_wrong_stride_is_found_when_it_is_built(net, stride, said):
    with pytest.raises(ValueError, match=said):
        ModuleTrunk(net, stride=stride)


def test_workers_know_the_trunk_of_a_script(tmp_path):
    """A class of `__main__`, as in a notebook, travels to Ray's workers by value."""
    script = f"""
        import sys
        from pathlib import Path
        import ray.cloudpickle as pickle
        from torch import nn
        from wsss_ray.core import Trunk
        from wsss_ray.nets.wrapped import ModuleTrunk
        from wsss_ray.nets.cam import CamNet
        from wsss_ray.methods.cam import CamClassifier

        class Patches(Trunk):
            channels: int = 48

            def build(self):
                return ModuleTrunk(nn.Conv2d(3, self.channels, 8, stride=8), stride=8)

        learner = CamClassifier(trunk={{"kind": "patches", "channels": 7}}, hidden=None)
        Path({str(tmp_path / "learner")!r}).write_bytes(pickle.dumps(learner))
        print(learner.identity())
    """
    worker = f"""
        import pickle
        from pathlib import Path
        learner = pickle.loads(Path({str(tmp_path / "learner")!r}).read_bytes())
        assert learner.build(3).trunk.channels == 7
        print(learner.identity())
    """
    said = []
    for code in (script, worker):
        command = [sys.executable, "-c", textwrap.dedent(code)]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        said.append(done.stdout)
    assert said[0] == said[1]
    assert "'kind': 'patches'" in said[0]
