"""torchvision beside whatever torch is installed. Each case in a process of its own: an import cannot be taken back."""

from __future__ import annotations

import subprocess
import sys

import pytest

USE = """
from wsss_ray.nets.torchvision_safe import torchvision
tv = torchvision()
assert tv is torchvision()
import torch, torchvision as plain
assert plain is tv
from torchvision.transforms import v2
assert v2.functional.resize(torch.zeros(3, 8, 8), [4, 4]).shape == (3, 4, 4)
assert tv.models.VGG16_Weights.IMAGENET1K_V1.url.endswith(".pth")
with torch.device("meta"):
    assert len(tv.models.vgg16(weights=None).state_dict()) == 32
if tv.extension._has_ops():
    boxes = torch.tensor([[0.0, 0, 2, 2], [0, 0, 2, 2]])
    assert tv.ops.nms(boxes, torch.tensor([0.5, 0.9]), 0.5).tolist() == [1]
"""
FAILED_BEFORE = """
try:
    import torchvision
except RuntimeError as error:
    assert "torchvision::nms" in str(error)
"""
LOADED_BEFORE = """
from wsss_ray.nets.torchvision_safe import torchvision
torchvision()
"""


@pytest.mark.parametrize("before", ["", FAILED_BEFORE, LOADED_BEFORE], ids=["fresh", "after a failed import", "twice"])
def test_imports_and_works(before):
    done = subprocess.run([sys.executable, "-W", "error", "-c", before + USE], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
