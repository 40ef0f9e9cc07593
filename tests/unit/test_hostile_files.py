"""Files that are small and stand for much, or are not what they should be: refused in one line, before memory is taken."""

from __future__ import annotations

import json

import pytest
import torch
from torch import nn

from tests.fuzz import hostile
from wsss_ray.data.cls_labels import read_cls_labels
from wsss_ray.data.coco_json import read_instances
from wsss_ray.data.tables import read_tag_table
from wsss_ray.data.voc import Voc
from wsss_ray.nets.weights import Weights, copy_weights, load_weights


def refused(call, match):
    with pytest.raises(ValueError, match=match) as caught:
        call()
    assert type(caught.value) is ValueError
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 3000


@pytest.mark.parametrize("place", range(3))
def test_tag_vectors_that_share_one_long_content_are_refused(place):
    refused(lambda: read_cls_labels(hostile.cls_labels()[9 + place]), "its pickle unfolds to much more than the file; refused")


@pytest.mark.parametrize(
    ("place", "match"), [(0, "claims 5000000 rows, too many"), (1, "claims 200000 rows"), (2, "unfolds to 2000106 bytes")]
)
def test_a_table_whose_names_unfold_is_refused(tmp_path, place, match):
    path = tmp_path / "tags.parquet"
    path.write_bytes(hostile.parquet_files()[place])
    refused(lambda: read_tag_table(path, "tags"), rf"data\.tags: .*tags\.parquet {match}")


@pytest.mark.parametrize("suffix", [".json", ".jsonl"])
@pytest.mark.parametrize("text", ["[" * 100_000, "9" * 5_000])
def test_json_that_is_deep_or_long_is_refused(tmp_path, suffix, text):
    path = tmp_path / f"tags{suffix}"
    path.write_text(text)
    refused(lambda: read_tag_table(path, "tags"), r"tags\.jsonl?(:1)?: not JSON: ")


def test_a_compressed_weights_file_that_unfolds_is_refused(tmp_path):
    path = tmp_path / "net.pth"
    path.write_bytes(hostile.torch_files()[24])
    refused(lambda: load_weights(Weights(source=str(path))), "is not a readable file of tensors. .*it unfolds to 300000")


def load_weights_message(path):
    with pytest.raises(ValueError, match="weights") as caught:
        load_weights(Weights(source=str(path)))
    return str(caught.value)


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "older"])
def test_a_long_name_in_a_weights_file_costs_no_time(tmp_path, zipped):
    """torch.load computes for minutes on the message that it makes of such a name."""
    path = tmp_path / "net.pth"
    torch.save({"w": torch.zeros(2), "notes": "a long text with spaces " * 1_000}, path, _use_new_zipfile_serialization=zipped)
    assert load_weights_message(path).endswith("is not a state dict (names to tensors). Save net.state_dict().")
    torch.save({"w": torch.zeros(2), "notes": "x" * 60_000}, path, _use_new_zipfile_serialization=zipped)
    assert load_weights_message(path).endswith("a text without spaces that is too long for a name")


@pytest.mark.parametrize(
    "state",
    [
        {1: torch.zeros(1)},
        {"w": torch.zeros(2, 2).to_sparse()},
        {"w": torch.empty(2, device="meta")},
    ],
)
@pytest.mark.filterwarnings("ignore")
def test_only_plain_tensors_with_names_are_weights(tmp_path, state):
    torch.save(state, tmp_path / "net.pth")
    refused(lambda: load_weights(Weights(source=str(tmp_path / "net.pth"))), "is not a plain tensor on a CPU with a name")


def test_weights_that_do_not_fit_are_one_line():
    refused(lambda: copy_weights(nn.Linear(2, 2), {"a\nb": torch.zeros(1)}), "does not fit the network. .*Missing key.*weight")


def test_names_that_no_text_can_hold_are_refused(tmp_path):
    path = tmp_path / "instances.json"
    for name in ("\ud800", "\udfff cat"):
        path.write_text(json.dumps({"images": [], "annotations": [], "categories": [{"id": 1, "name": name}]}))
        refused(lambda: read_instances(path, "train_annotations"), r"categories\[0\]\.name is '\\ud.*'; expected a name")


@pytest.mark.parametrize("line", ["a\0b", "a\x1b[31m", "/JPEGImages/a\0.jpg", "a\x7f 0"])
def test_a_list_with_control_characters_is_refused(tmp_path, line):
    (tmp_path / "list.txt").write_text(f"{line}\n")
    source = Voc(root=str(tmp_path), train="list.txt", val=None)
    refused(lambda: source.items("weak"), r"list\.txt:1: .* holds a control character; save the list as text")
