"""Weights of CLIP and SAM that `init` is given, and those that it finds and offers."""

from __future__ import annotations

from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import pytest
import yaml

from tests.photos import class_folders, init
from wsss_ray.config.job import load_job
from wsss_ray.preflight.survey.ladder import ladder, words, worse
from wsss_ray.preflight.survey.networks import Networks, checked, offers
from wsss_ray.preflight.survey.sizes import Machine, sizes_for

needs_clip = pytest.mark.skipif(find_spec("open_clip") is None, reason="needs the extra clip (open_clip)")
needs_sam = pytest.mark.skipif(find_spec("segment_anything") is None, reason="needs the extra sam (segment-anything)")


def weights(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"weights")
    return path


@pytest.fixture
def caches(tmp_path, monkeypatch):
    """A working folder, and caches of packages, without any weights in them."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("HF_HOME", raising=False)
    monkeypatch.delenv("TORCH_HOME", raising=False)
    return tmp_path / "cache"


@needs_clip
def test_clip_makes_the_maps(tmp_path, caches):
    file = weights(tmp_path / "ViT-B-16.safetensors")
    root, out = class_folders(tmp_path / "pets"), tmp_path / "job.yaml"
    said = init(root, "--out", out)
    assert "offer     init again with --clip ViT-B-16.safetensors: maps by CLIP, about a second an image" in said
    said = init(root, "--out", out, "--force", "--clip", file.name)
    assert "offer" not in said
    job = yaml.safe_load(out.read_text())
    assert job["method"]["name"] == "clip_es"
    assert job["method"]["maps"]["clip"]["weights"] == str(file)
    assert "classifier" not in job["method"]
    assert "saliency" not in out.read_text()


@needs_sam
@pytest.mark.parametrize("preset", [(), ("--preset", "quick")])
def test_sam_votes_on_the_seeds_of_any_method(tmp_path, caches, preset):
    file = weights(tmp_path / "sam_vit_l_0b3195.pth")
    root, out = class_folders(tmp_path / "pets"), tmp_path / "job.yaml"
    init(root, "--out", out, "--sam", file, *preset)
    (vote,) = yaml.safe_load(out.read_text())["method"]["refine"]
    assert vote == {"kind": "segment_voting", "segments": {"kind": "sam", "variant": "vit_l", "weights": str(file)}}


@pytest.mark.parametrize("name", ["clip", "sam"])
def test_a_file_that_is_not_there(tmp_path, caches, name):
    root = class_folders(tmp_path / "pets")
    assert f"--{name} none.pth: there is no such file; give" in init(root, f"--{name}", "none.pth", code=2)
    assert f"--{name} pets: is a folder; give the file with the weights" in init(root, f"--{name}", "pets", code=2)


def test_weights_without_the_package(tmp_path, monkeypatch):
    monkeypatch.setattr("wsss_ray.preflight.survey.networks.find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"--sam: needs the package segment_anything. Run: pip install 'wsss-ray\[sam\]'"):
        checked(Networks(sam=weights(tmp_path / "sam_vit_b.pth")))


def test_weights_that_other_packages_downloaded_are_offered(caches, monkeypatch):
    assert list(offers(Networks())) == []
    hub = caches / "huggingface" / "hub" / "models--timm--vit_base_patch16_clip_224.openai" / "snapshots" / "a1"
    clip, sam = weights(hub / "open_clip_model.safetensors"), weights(caches / "torch/hub/checkpoints/sam_vit_h_4b8939.pth")
    assert [text.split(": ")[0] for text in offers(Networks())] == [f"--clip {clip}", f"--sam {sam}"]
    assert len(list(offers(Networks(clip=clip)))) == 1
    monkeypatch.setattr("wsss_ray.preflight.survey.networks.find_spec", lambda name: None)
    assert next(offers(Networks())).startswith(f"--clip {clip} (after pip install 'wsss-ray[clip]'): maps by CLIP")


def test_weights_of_other_networks_are_not_offered(caches):
    for name in ("ViT-B-16-SigLIP.safetensors", "ViT-B-16-laion2b.safetensors", "mobile_sam.pt"):
        weights(Path(name))
    assert list(offers(Networks())) == []


@needs_sam
def test_the_name_of_a_file_tells_the_size_of_sam(tmp_path, caches):
    assert Networks(sam=Path("SAM_ViT_L.pth")).sam_variant == "vit_l"
    said = init(class_folders(tmp_path / "pets"), "--sam", weights(tmp_path / "mobile_sam.pt"), code=2)
    assert "its name does not tell the size of SAM; rename it to have vit_b, vit_l or vit_h in it" in said


@needs_clip
@needs_sam
def test_both_at_once_and_paths_that_yaml_would_split(tmp_path, caches):
    clip, sam = weights(tmp_path / "a, {b}" / "clip.safetensors"), weights(tmp_path / "a, {b}" / "sam_vit_b.pth")
    out = tmp_path / "job.yaml"
    said = init(class_folders(tmp_path / "pets"), "--out", out, "--clip", clip, "--sam", sam, "--preset", "quick")
    assert "maps by CLIP, votes of SAM's masks" in said
    method = load_job(out).method
    assert method.maps.clip.weights.source == str(clip)
    assert method.refine[0].segments.weights.source == str(sam)


def test_all_settings_of_a_job_with_clip_have_it(tmp_path):
    usual = replace(sizes_for(Machine(2, 16e9), [320], 1552), networks=Networks(clip=tmp_path / "clip.safetensors"))
    rungs = ladder(usual, 1552)
    assert [one.side for one in rungs] == [256, 192, 192, 192]
    assert all(one.networks == usual.networks and not one.plain for one in rungs)
    assert words(rungs[0]) == "images of 256 pixels, maps by CLIP, 4 epochs of the segmenter"
    assert worse(rungs[-1], rungs[0])[-1] == "fewer epochs of the segmenter (1, not 4): it learns less"
