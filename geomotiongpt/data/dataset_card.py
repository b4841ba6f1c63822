"""The card of a motion data set on the Hub."""

from collections.abc import Sequence

from datasets import DatasetDict
from huggingface_hub import DatasetCard, DatasetCardData

from ..models.motion_representation import get_motion_representation

_SOURCES = {
    "humanml3d": "HumanML3D, made from AMASS and HumanAct12",
    "babel": "BABEL, made from AMASS",
    "kitml": "KIT-ML, made from the MMM motions of its release",
    "bandai": "the Bandai-Namco Research motion data set; the captions are templates, not sentences of people",
    "join": "several data sets, joined",
    "files": "motion files and a table of captions",
    "joints": "joints and captions",
}


def motion_dataset_card(
    repo_id: str,
    motions: DatasetDict,
    representation: str,
    *,
    source: str,
    licence: str | None = None,
    notes: Sequence[str] = (),
) -> DatasetCard:
    """What the data set is, how it is loaded, and who may have it.

    Args:
        repo_id: its name on the Hub.
        motions: its splits, as `load_motion_dataset` returns them.
        representation: of the motions.
        source: form of `build-data` that made it.
        licence: name of the licence, as the Hub knows it; None says nothing.
        notes: lines about licences.
    """
    layout = get_motion_representation(representation)
    data = DatasetCardData(license=licence, tags=["human-motion", "motion-captioning", "geomotiongpt"])
    rows = [
        f"| {name} | {len(split)} | {sum(map(len, split['captions']))} |" for name, split in sorted(motions.items())
    ]
    text = f"""# {repo_id.partition("/")[2]}

Human motion with captions: {_SOURCES[source]}, built by `geomotiongpt build-data`.

| split | motions | captions |
|---|---|---|
{chr(10).join(rows)}

A motion has {layout.num_features} features a frame ("{representation}": {layout.num_joints} joints), {layout.fps:g} \
frames a second; mirrored clips are called `M<id>`, and parts of a clip `<id>#<first frame>-<end frame>`. `Mean.npy`
and `Std.npy` are the statistics of the training split.

```python
import geomotiongpt as gm

motions = gm.load_motion_dataset("{repo_id}", representation="{representation}")
mean, std = gm.load_motion_statistics("{repo_id}", "{representation}")
```

## Licence

{chr(10).join(f"- {note[:1].upper()}{note[1:]}." for note in notes)}
"""
    return DatasetCard(f"---\n{data.to_yaml()}\n---\n\n{text}")
