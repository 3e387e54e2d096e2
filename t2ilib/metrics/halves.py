"""What real pictures reach against each other: one half of a reference measured against the other half.

Toy birds can be drawn anew, photographs cannot; so their own distances are those between disjoint halves, drawn by a
seed. Each half has half as many pictures, and a Frechet distance of fewer pictures is larger: the number of pictures
stands beside each number. The second half is augmented as the whole reference is, the first shows pictures as they are.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from t2ilib.data.captioned import CaptionedImages
from t2ilib.devices import CPU_BATCH
from t2ilib.metrics.drawing import ALONE, Team, halves
from t2ilib.metrics.extractors import Extractor
from t2ilib.metrics.moments import Reference
from t2ilib.metrics.protocols import COMPARED, METRICS, Protocol
from t2ilib.metrics.references import FOLDER, dataset_reference
from t2ilib.metrics.watching import Watch
from t2ilib.pictures import to_float

FEWEST = 3  # pictures that a half has to have more of: the neighbours of precision and recall


def second_half(
    dataset: CaptionedImages,
    extractor: Extractor,
    protocol: Protocol,
    seed: int = 0,
    folder: str | Path | None = FOLDER,
) -> Reference | None:
    """Return what the first half of a protocol's real pictures is measured against; None where that is too small."""
    one, other = halves(len(dataset), seed)
    if len(one) <= FEWEST or not COMPARED.intersection(protocol.metrics):
        return None
    return dataset_reference(dataset.subset(other), extractor, protocol.augmentation, folder)


def first_half(
    dataset: CaptionedImages,
    extractor: Extractor,
    reference: Reference,
    names: Sequence[str],
    seed: int = 0,
    team: Team = ALONE,
) -> Watch:
    """Return what metrics that compare with a reference found of the first half; a FID needs more than F pictures."""
    rows, _ = halves(len(dataset), seed)
    least = {"fid": extractor.size}
    fits = [name for name in names if min(len(rows), reference.count) > least.get(name, FEWEST)]
    found = {name: METRICS[name](extractor, reference, len(rows)) for name in fits if name in COMPARED}
    watch = Watch(found, team)
    parts = team.share(np.split(np.arange(len(rows)), range(CPU_BATCH, len(rows), CPU_BATCH)))
    for _ in watch.alone((to_float(dataset.images[rows[part]]) for part in parts), parts, len(rows), distances=True):
        pass
    return watch
