"""mxnet's parameter files: written here byte by byte, as its sources say, and read by ours."""

from __future__ import annotations

import struct

import numpy as np
import pytest
import torch

from tests.unit.test_nets import images
from tests.unit.test_resnet38 import THIN, lively
from wsss_ray.nets.mxnet_params import read_params, resnet38_names
from wsss_ray.nets.small import SmallNet
from wsss_ray.nets.weights import Weights, load_weights

MAGIC = {"legacy": None, "v1": 0xF993FAC8, "v2": 0xF993FAC9, "v3": 0xF993FACA}
TYPES = {"float32": 0, "float64": 1, "float16": 2, "uint8": 3, "int32": 4, "int8": 5, "int64": 6}
SMALL = {
    "arg:conv1a_weight": np.arange(6, dtype=np.float32).reshape(1, 2, 3) / 7,
    "aux:bn7_moving_var": np.array([3, 250], np.uint8),
}


def shape_bytes(shape, version):
    if version == "legacy":
        return struct.pack(f"<I{len(shape)}I", len(shape), *shape)
    return struct.pack(f"<I{len(shape)}q", len(shape), *shape)


def array_bytes(value, version, *, storage=0, kind=None, shape=None):
    head = struct.pack("<I", MAGIC[version]) if MAGIC[version] else b""
    if version in ("v2", "v3"):
        head += struct.pack("<i", storage)
    head += shape_bytes(value.shape if shape is None else shape, version)
    head += struct.pack("<iii", 2, 3, TYPES[value.dtype.name] if kind is None else kind)  # of the fourth GPU
    return head + value.tobytes()


def file_bytes(arrays, names, *, magic=0x112, count=None, named=None, tail=b""):
    parts = [struct.pack("<QQQ", magic, 0, len(arrays) if count is None else count), *arrays]
    parts.append(struct.pack("<Q", len(names) if named is None else named))
    parts += [struct.pack("<Q", len(name)) + name for name in names]
    return b"".join(parts) + tail


def params_bytes(params, version, **how):
    return file_bytes([array_bytes(value, version) for value in params.values()], [name.encode() for name in params], **how)


def written(tmp_path, data):
    (tmp_path / "net.params").write_bytes(data)
    return tmp_path / "net.params"


@pytest.mark.parametrize("version", MAGIC)
def test_every_version_and_type(tmp_path, version):
    rng = np.random.default_rng(0)
    params = {f"arg:{name}": rng.integers(0, 100, size=(2, 3, 1, 4)).astype(name) for name in TYPES} | SMALL
    found = read_params(written(tmp_path, params_bytes(params, version)))
    assert list(found) == list(params)
    for name, value in params.items():
        assert found[name].dtype == torch.from_numpy(value).dtype
        assert torch.equal(found[name], torch.from_numpy(value))


def test_numpy_shapes_know_scalars_and_empty_arrays(tmp_path):
    params = {"scalar": np.float64(2.5).reshape(()), "empty": np.zeros((0, 3), np.float32)}
    found = read_params(written(tmp_path, params_bytes(params, "v3")))
    assert found["scalar"].item() == 2.5
    assert found["empty"].shape == (0, 3)


def test_no_arrays_at_all(tmp_path):
    assert read_params(written(tmp_path, file_bytes([], []))) == {}


@pytest.mark.parametrize("version", MAGIC)
def test_a_file_cut_short_anywhere_is_refused(tmp_path, version):
    data = params_bytes(SMALL, version)
    for length in range(len(data)):
        with pytest.raises(ValueError, match=r"weights.source: .*net.params is not a readable mxnet parameter file: "):
            read_params(written(tmp_path, data[:length]))


ONES = np.ones((2, 3), np.float32)
DAMAGED = {
    "a zip file": (b"PK\3\4" + bytes(60), r"begins with 0x4034b50, not with 0x112"),
    "another list": (params_bytes(SMALL, "v2", magic=0x113), "begins with 0x113"),
    "big-endian": (struct.pack(">QQQ", 0x112, 0, 0), "not with 0x112"),
    "bytes behind": (params_bytes(SMALL, "v2", tail=b"\0"), "1 bytes follow the last name"),
    "row-sparse": (
        file_bytes([array_bytes(ONES, "v2", storage=1)], [b"x"]),
        r"array 0 is row-sparse \(storage type 1\), not dense",
    ),
    "csr": (file_bytes([array_bytes(ONES, "v2", storage=2)], [b"x"]), "compressed sparse"),
    "no storage": (file_bytes([array_bytes(ONES, "v2", storage=-1)], [b"x"]), "undefined"),
    "storage 9": (file_bytes([array_bytes(ONES, "v3", storage=9)], [b"x"]), "unknown kind"),
    "bfloat16": (file_bytes([array_bytes(ONES, "v2", kind=12)], [b"x"]), "array 0 has the unknown element type 12"),
    "type -1": (file_bytes([array_bytes(ONES, "v1", kind=-1)], [b"x"]), "unknown element type -1"),
    "no shape": (file_bytes([array_bytes(ONES, "v2", shape=())], [b"x"]), "array 0 is undefined: it has no shape"),
    "no shape, legacy": (file_bytes([array_bytes(ONES, "legacy", shape=())], [b"x"]), "undefined: it has no shape"),
    "-1 dimensions": (
        file_bytes([struct.pack("<IiI", MAGIC["v3"], 0, 2**32 - 1) + bytes(24)], [b"x"]),
        "undefined: it has no shape",
    ),
    "unknown side": (file_bytes([array_bytes(ONES, "v3", shape=(2, -1))], [b"x"]), r"undefined: its shape is \(2, -1\)"),
    "side 0": (file_bytes([array_bytes(ONES, "v1", shape=(0, 3))], [b"x"]), r"undefined: its shape is \(0, 3\)"),
    "unknown version": (
        file_bytes([struct.pack("<I", 0xF993FACB) + bytes(40)], [b"x"]),
        "begins with 0xf993facb and has 4187224779 ",
    ),
    "33 dimensions": (file_bytes([array_bytes(ONES, "v2", shape=(1,) * 33)], [b"x"]), "33 dimensions"),
    "absurd side": (
        file_bytes([array_bytes(ONES, "v2", shape=(2**60, 3))], [b"x"]),
        r"needs 13835058055282163712 bytes at offset",
    ),
    "absurd legacy": (file_bytes([array_bytes(ONES, "legacy", shape=(2**32 - 1,) * 4)], [b"x"]), "bytes at offset"),
    "too large by one": (file_bytes([array_bytes(ONES, "v2", shape=(2, 10))], [b"x"]), "array 0 of shape .* needs 80 bytes"),
    "absurd count": (params_bytes(SMALL, "v2", count=2**63), "holds 9223372036854775808 arrays, too many"),
    "fewer arrays": (params_bytes(SMALL, "v2", count=1), "it has 1 arrays and "),
    "fewer names": (params_bytes(SMALL, "v2", named=1), "it has 2 arrays and 1 names"),
    "no names": (file_bytes([array_bytes(ONES, "v2")], []), "1 arrays and 0 names"),
    "absurd name": (file_bytes([array_bytes(ONES, "v2")], [], named=1) + struct.pack("<Q", 2**62), "name 0 needs"),
    "no text": (file_bytes([array_bytes(ONES, "v2")], [b"\xff\xfe"]), "name 0 is not text"),
    "same name": (file_bytes([array_bytes(ONES, "v2")] * 3, [b"y", b"x", b"x"]), "the name 'x' occurs twice"),
}


@pytest.mark.parametrize("what", DAMAGED)
def test_damage_is_refused(tmp_path, what):
    data, message = DAMAGED[what]
    with pytest.raises(ValueError, match=message) as caught:
        read_params(written(tmp_path, data))
    assert str(tmp_path / "net.params") in str(caught.value)


# --- Model A1


def model_a1(trunk):
    """The trunk's parameters, as the authors' file names them, with their classifier."""
    parts = {"weight": "gamma", "bias": "beta", "running_mean": "moving_mean", "running_var": "moving_var"}
    params = {"arg:linear1000_weight": np.zeros((5, trunk.channels), np.float32), "arg:linear1000_bias": np.zeros(5, np.float32)}
    for name, value in trunk.state_dict().items():
        *unit, layer, part = name.split(".")
        if part == "num_batches_tracked":
            continue
        kind, _, branch = layer.partition("_")
        stage = "".join(unit).removeprefix("b").replace("_", "b") if unit else ""
        stage += "" if "b" in stage else "a"
        where = "aux" if part.startswith("running") else "arg"
        if not unit:
            full = f"{layer}_{parts[part] if layer == 'bn7' else 'weight'}"
        elif kind == "conv":
            full = f"res{stage}_{branch}_weight"
        else:
            full = f"bn{stage}_{branch}_{parts[part]}"
        params[f"{where}:{full}"] = value.numpy()
    return params


def test_names_of_model_a1():
    names = {  # of symbols that util/symbol/resnet_v2.py of itijyou/ademxapp makes
        "arg:conv1a_weight": "conv1a.weight",
        "arg:res2a_branch2a_weight": "b2.conv_branch2a.weight",
        "arg:res2a_branch1_weight": "b2.conv_branch1.weight",
        "arg:bn2a_branch2a_gamma": "b2.bn_branch2a.weight",
        "arg:bn2a_branch2b1_beta": "b2.bn_branch2b1.bias",
        "aux:bn2a_branch2a_moving_mean": "b2.bn_branch2a.running_mean",
        "aux:bn4b5_branch2b1_moving_var": "b4_5.bn_branch2b1.running_var",
        "arg:res2b1_branch2a_weight": "b2_1.conv_branch2a.weight",
        "arg:res6a_branch2b2_weight": "b6.conv_branch2b2.weight",
        "arg:bn7a_branch2b2_gamma": "b7.bn_branch2b2.weight",
        "arg:bn7_gamma": "bn7.weight",
        "aux:bn7_moving_var": "bn7.running_var",
    }
    left_out = ["arg:linear1000_weight", "arg:linear1000_bias", "arg:res2a_branch2a_bias_extra", "arg:fc1_weight"]
    params = {name: torch.tensor(float(index)) for index, name in enumerate([*names, *left_out])}
    assert resnet38_names(params) == {ours: params[theirs] for theirs, ours in names.items()}


@pytest.mark.parametrize("version", MAGIC)
def test_model_a1_loads(tmp_path, version):
    first = lively(THIN.build()).eval()
    params = model_a1(first)
    assert {"arg:res2b1_branch2a_weight", "arg:bn2a_branch2a_gamma", "aux:bn7_moving_mean"} <= set(params)
    path = written(tmp_path, params_bytes(params, version))
    second = THIN.model_copy(update={"weights": Weights(source=str(path))}).build().eval()
    image = images(1, 65)
    with torch.inference_mode():
        assert torch.equal(first(image), second(image))
        assert not torch.equal(first(image), THIN.build().eval()(image))


def test_other_networks_say_that_it_does_not_fit(tmp_path):
    path = str(written(tmp_path, params_bytes(SMALL, "v2")))
    assert list(load_weights(Weights(source=path))) == list(SMALL)
    with pytest.raises(ValueError, match=r"(?s)weights.source: does not fit the network.*arg:conv1a_weight"):
        SmallNet(weights=Weights(source=path)).build()
    with pytest.raises(ValueError, match=r"(?s)weights.source: does not fit the network.*b2.conv_branch1.weight"):
        THIN.model_copy(update={"weights": Weights(source=path)}).build()
    with pytest.raises(ValueError, match=r"weights.source: there is no file .*gone.params"):
        load_weights(Weights(source=str(tmp_path / "gone.params")))
