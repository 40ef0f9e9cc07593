"""Plan the stages of the data of a job: one per split, one for the saliency maps, one per extra input."""

from __future__ import annotations

from wsss_ray.core.plan import Data, ingest, salient
from wsss_ray.core.rules import SaliencyNet
from wsss_ray.data.extra import ExtraInput
from wsss_ray.data.lookup import looked_up_once
from wsss_ray.data.source import Source, describe


def stages_of(source: Source) -> Data:
    """Make the ingest stages of all splits of a source. Raises ValueError that says what is wrong with the lists."""
    with looked_up_once():
        classes, names = source.class_names(), source.splits()
        splits = {split: describe(source, split, classes) for split in names if split != "saliency"}
        found = {split: ingest(component, name=f"images-{split}") for split, component in splits.items()}
        weak = found["weak"]
        if isinstance(source.saliency, SaliencyNet):
            saliency = salient(source.saliency, weak)
        elif "saliency" in names:
            saliency = ingest(describe(source, "saliency", classes), name="saliency", like=weak)
        elif source.saliency_folder is None:
            saliency = None
        else:
            raise ValueError(f"data.saliency: {source.kind()} reads no folder of maps. Give a network such as {{kind: u2net}}.")
        further = {one.name: describe(ExtraInput.of(source, one), "extra", classes) for one in source.extra}
        extra = {name: ingest(component, name=name, like=weak) for name, component in further.items()}
    return Data(
        classes=classes,
        weak=weak,
        val=found.get("val"),
        strong=found.get("strong"),
        saliency=saliency,
        extra=extra,
        weak_has_masks=splits["weak"].num_masks > 0,
    )
