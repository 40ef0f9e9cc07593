"""Segments that vote on seeds: the rule by hand and against SEPL's loop, segments of each source, and their place in a job."""

from __future__ import annotations

from importlib.util import find_spec

import numpy as np
import pytest
from PIL import Image

from tests.local import job_of, run_plan, stage_named
from tests.shapes import Shapes, tiny_job
from wsss_ray.core import IGNORE, Given
from wsss_ray.data.codecs import decode_extra, decode_gray
from wsss_ray.methods.common.segment_voting import Felzenszwalb, Sam, SegmentFiles, SegmentVoting, Slic
from wsss_ray.ops.segments import largest_apart, layered, vote
from wsss_ray.storage.shards import read_all
from wsss_ray.storage.store import RunStore

needs_skimage = pytest.mark.skipif(find_spec("skimage") is None, reason="needs the extra segments (scikit-image)")
needs_sam = pytest.mark.skipif(find_spec("segment_anything") is None, reason="needs the extra sam (segment-anything)")


def row(*values):
    return np.array([values], np.uint8)


def voted(label_HW, *segments, share=0.5, covers=None, voters="objects"):
    layers = [np.array([segment], np.uint16) for segment in segments]
    return vote(label_HW, layers, share=share, covers=covers, voters=voters)[0].tolist()


def test_a_segment_takes_the_object_that_has_more_than_the_share_of_it():
    label_HW = row(3, 3, 0, 0, 0, 5, 0, 0, 3)
    segment = (1, 1, 1, 2, 2, 2, 0, 0, 0)
    assert voted(label_HW, segment) == [3, 3, 3, 0, 0, 0, 0, 0, 3]
    assert voted(label_HW, segment, share=2 / 3) == [0, 0, 0, 0, 0, 0, 0, 0, 3], "exactly the share is not more"
    assert voted(label_HW, segment, share=0.3) == [3, 3, 3, 5, 5, 5, 0, 0, 3]


def test_a_segment_that_has_most_of_a_class_takes_it():
    label_HW = row(3, 3, 0, 0, 0, 0, 0, 3)
    segment = (1, 1, 1, 1, 1, 1, 2, 2)
    assert voted(label_HW, segment, covers=0.6) == [3, 3, 3, 3, 3, 3, 0, 0], "2 of 3 pixels of the class"
    assert voted(label_HW, segment, covers=0.7) == [0] * 8
    assert voted(row(0, 0, 3), (1, 1, 0), covers=0.5, voters="labels") == [0, 0, 3], "background takes by its share alone"


def test_background_votes_where_all_labels_do():
    label_HW = row(3, 3, 0, 0, 0, 3, 3, 5, 0, 0)
    segment = (1, 1, 1, 2, 2, 2, 3, 3, 3, 3)
    assert voted(label_HW, segment, voters="labels") == [3, 3, 3, 0, 0, 0, 3, 5, 0, 0], "half is no majority: it keeps"


def test_undecided_pixels_count_in_the_size_and_for_no_label():
    label_HW = row(3, IGNORE, IGNORE, 3, 3, IGNORE)
    segment = (1, 1, 1, 2, 2, 2)
    for voters in ("objects", "labels"):
        found = voted(label_HW, segment, voters=voters)
        assert found[1:] == [IGNORE, IGNORE, 3, 3, 3]
        assert found[0] == (0 if voters == "objects" else 3)


def test_of_overlapping_segments_the_purer_decides():
    label_HW = row(3, 3, 3, 5, 5, 0)
    assert voted(label_HW, (1, 1, 1, 1, 0, 0), (0, 0, 0, 1, 1, 0)) == [3, 3, 3, 5, 5, 0]
    assert voted(label_HW, (0, 0, 0, 1, 1, 0), (1, 1, 1, 1, 0, 0)) == [3, 3, 3, 5, 5, 0], "in any order"


def sepl(label_HW, masks):
    """The rule of SEPL's page in a loop over classes and masks, for masks that do not overlap and go to one class each."""
    found_HW = np.zeros_like(label_HW)
    covered_HW = np.any(masks, axis=0)
    for label in range(1, 6):
        own_HW = label_HW == label
        if not own_HW.any():
            continue
        for mask_HW in masks:
            overlaps = [(mask_HW & (label_HW == other)).sum() for other in range(1, 6)]
            if np.argmax(overlaps) + 1 != label or not max(overlaps):
                continue
            both = (mask_HW & own_HW).sum()
            if both / mask_HW.sum() > 0.5 or both / own_HW.sum() >= 0.85:
                found_HW[mask_HW] = label
        found_HW[own_HW & ~covered_HW] = label
    return found_HW


@pytest.mark.parametrize("seed", range(8))
def test_the_vote_of_objects_is_sepls(seed):
    rng = np.random.default_rng(seed)
    label_HW = np.kron(rng.choice(np.array([0, 0, 2, 3, 5], np.uint8), (4, 4)), np.ones((3, 3), np.uint8))
    segment_HW = np.kron(rng.integers(0, 6, (6, 6)), np.ones((2, 2), np.int64)).astype(np.uint16)
    masks = [segment_HW == number for number in range(1, 6) if (segment_HW == number).any()]
    found = vote(label_HW, [segment_HW], share=0.5, covers=0.85, voters="objects")
    assert (found == sepl(label_HW, masks)).all()
    again = vote(label_HW, layered(masks), share=0.5, covers=0.85, voters="objects")
    assert (again == found).all()


def test_masks_that_overlap_get_layers():
    one, two, three = (np.array([mask], bool) for mask in ((1, 1, 0, 0), (0, 1, 1, 0), (0, 0, 0, 1)))
    assert [layer.tolist() for layer in layered([one, two, three])] == [[[1, 1, 0, 2]], [[0, 1, 1, 0]]]
    assert layered([]) == []


def test_boxes_that_are_nearly_the_same_leave_the_best():
    boxes = np.array([[0, 0, 10, 10], [0, 0, 10, 8], [0, 0, 10, 5], [20, 0, 30, 10]], np.float64)
    assert largest_apart(boxes, np.array([0.5, 0.9, 0.7, 0.6]), 0.7) == [1, 2, 3]
    assert largest_apart(boxes, np.array([0.5, 0.9, 0.7, 0.6]), 0.6) == [1, 3]


def photograph():
    """A disc on a ground of another colour, and the disc's mask."""
    y, x = np.mgrid[:48, :64]
    disc_HW = (y - 24) ** 2 + (x - 30) ** 2 < 15**2
    noise = np.random.default_rng(0).integers(-6, 6, (48, 64, 3))
    return (np.where(disc_HW[..., None], (200, 60, 50), (60, 110, 190)) + noise).astype(np.uint8), disc_HW


@needs_skimage
@pytest.mark.parametrize("segments", [Slic(count=60), Felzenszwalb(scale=200, min_size=20)] if find_spec("skimage") else [])
def test_superpixels_bring_a_rough_seed_to_the_border(segments):
    image_HWC, disc_HW = photograph()
    rough_HW = np.zeros((48, 64), np.uint8)
    rough_HW[12:38, 18:44] = 2
    given = Given(image_HWC, (1,), 0, seed_HW=rough_HW)
    [layer_HW] = segments.layers(None, given)
    assert layer_HW.dtype == np.uint16
    assert layer_HW.min() == 1
    refiner = SegmentVoting(segments=segments, voters="labels")
    assert refiner.reads == ("seeds",)
    found_HW = refiner.refine(None, given)

    def iou(label_HW):
        return ((label_HW == 2) & disc_HW).sum() / ((label_HW == 2) | disc_HW).sum()

    assert iou(rough_HW) < 0.85
    assert iou(found_HW) > iou(rough_HW) + 0.05


@pytest.mark.skipif(find_spec("skimage") is not None, reason="scikit-image is installed")
def test_without_scikit_image_one_line_says_what_to_install():
    with pytest.raises(ValueError, match=r"scikit-image is not installed, .* Run: pip install 'wsss-ray\[segments\]'"):
        Slic()


@pytest.mark.skipif(find_spec("segment_anything") is not None, reason="segment-anything is installed")
def test_without_sam_one_line_says_what_to_install():
    with pytest.raises(ValueError, match=r"segment-anything is not installed, .* Run: pip install 'wsss-ray\[sam\]'"):
        Sam()


def test_files_of_segments_have_the_name_of_an_extra_input():
    assert SegmentVoting(segments=SegmentFiles(name="parts")).reads == ("seeds", "parts")
    with pytest.raises(ValueError, match=r"name: 'maps' is no extra input. Give a name of data.extra."):
        SegmentFiles(name="maps")


def files_of(folder):
    """Shapes with their masks' halves as segments, in files."""
    source = Shapes(extra=[{"name": "segments", "folder": str(folder)}])
    for item in source.items("weak"):
        mask_HW = decode_gray(source.load(item).mask).astype(np.uint16)
        mask_HW[16:] *= 300
        (folder / item.image_id).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(mask_HW).save(folder / f"{item.image_id}.png")
    return source


def test_a_job_names_a_vote_after_any_methods_seeds(tmp_path):
    """Segments from files, through all stages: the labels are those of the rule, and are trained on."""
    source, store = files_of(tmp_path / "segments"), RunStore(str(tmp_path / "runs"))
    spec = tiny_job() | {"data": source}
    vote_by_files = {"kind": "segment_voting", "segments": {"kind": "segment_files"}, "share": 0.3, "covers": None}
    spec["method"] = spec["method"] | {"refine": [vote_by_files]}
    plan = job_of(spec).plan()
    voting = stage_named(plan, "segment_voting")
    assert stage_named(plan, "segmenter").input("seeds") == stage_named(plan, "seed_quality").input("seeds") == voting
    assert [role for role, _ in voting.inputs] == ["data", "seeds", "extra.segments"]
    run_plan(store, plan, last="segment_voting")
    before = read_all(store, voting.input("seeds"), "seeds").to_pylist()
    after = read_all(store, voting, "seeds").to_pylist()
    segments = read_all(store, voting.input("extra.segments"), "extra").to_pylist()
    changed = 0
    for old, new, segment in zip(before, after, segments, strict=True):
        old_HW, new_HW, segment_HW = decode_gray(old["seed"]), decode_gray(new["seed"]), decode_extra(segment["extra"])
        assert (new_HW == vote(old_HW, [segment_HW], share=0.3, covers=None, voters="objects")).all()
        assert (new_HW[segment_HW == 0] == old_HW[segment_HW == 0]).all()
        changed += int((new_HW != old_HW).sum())
    assert changed > 0


def test_files_of_segments_that_are_not_there_are_named():
    spec = tiny_job()
    spec["method"] = spec["method"] | {"refine": [{"kind": "segment_voting", "segments": {"kind": "segment_files"}}]}
    with pytest.raises(
        ValueError, match=r"segment_voting reads segments, and there is none. Set data.extra to \[\{name: segments"
    ):
        job_of(spec).plan()


def tiny_sam():
    """SAM with the parts of the package, small and at random."""
    import torch

    from wsss_ray.nets.torchvision_safe import torchvision

    torchvision()
    from segment_anything.modeling import ImageEncoderViT, MaskDecoder, PromptEncoder, TwoWayTransformer
    from segment_anything.modeling import Sam as Model

    torch.manual_seed(0)
    encoder = ImageEncoderViT(img_size=64, patch_size=16, embed_dim=16, depth=1, num_heads=2, out_chans=16)
    prompts = PromptEncoder(embed_dim=16, image_embedding_size=(4, 4), input_image_size=(64, 64), mask_in_chans=4)
    transformer = TwoWayTransformer(depth=1, embedding_dim=16, mlp_dim=16, num_heads=2)
    decoder = MaskDecoder(transformer_dim=16, transformer=transformer, iou_head_depth=2, iou_head_hidden_dim=16)
    for last in decoder.output_hypernetworks_mlps:  # as it starts, all logits are below 1
        last.layers[-1].weight.data *= 300
    return Model(encoder, prompts, decoder).eval()


@needs_sam
def test_masks_of_sam_become_layers_and_vote():
    """With random weights: masks are those that the model itself predicts at the points, and all filters act."""
    net, (image_HWC, _) = tiny_sam(), photograph()
    from segment_anything import SamPredictor  # after torchvision, which tiny_sam loads safely

    given = Given(image_HWC, (1,), 0, seed_HW=np.full((48, 64), 2, np.uint8))
    open_sam = Sam(points=3, score=0, stability=0, overlap=1)
    layers = open_sam.model_copy(update={"score": -1e9}).layers(net, given)
    predictor = SamPredictor(net)
    predictor.set_image(image_HWC)
    expected = set()
    for v in (8, 24, 40):
        for u in (64 / 6, 32, 64 * 5 / 6):
            logits, _, _ = predictor.predict(np.array([[u, v]]), np.ones(1), multimask_output=True, return_logits=True)
            expected |= {(logit_HW > 0).tobytes() for logit_HW in logits if (logit_HW > 1).any()}
    assert len(expected) > 5
    found = [layer_HW == number for layer_HW in layers for number in range(1, int(layer_HW.max()) + 1)]
    assert {mask_HW.tobytes() for mask_HW in found} == expected
    assert not open_sam.model_copy(update={"score": 1e9}).layers(net, given)
    fewer = open_sam.model_copy(update={"score": -1e9, "overlap": 0.5}).layers(net, given)
    assert len(fewer) <= len(layers)
    refined_HW = SegmentVoting(segments=open_sam.model_copy(update={"score": -1e9})).refine(net, given)
    assert (refined_HW == 2).all(), "all segments lie in one class"


@needs_sam
def test_sam_needs_its_weights():
    refiner = SegmentVoting(segments=Sam())
    assert refiner.has_network
    with pytest.raises(ValueError, match=r"weights: give the file of SAM's weights, such as sam_vit_h_4b8939.pth."):
        refiner.build(())
