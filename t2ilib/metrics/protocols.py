"""Protocols of the literature by name: everything besides the generator that a number depends on.

The same pictures score 23.98 or 14.01 by two programs that both say FID; so a protocol names captions, their number,
truncation, reference and its augmentation, pixels, extractor and resize, and results of two protocols are never set
side by side without their names. Where authors left something open, the protocol says what is chosen here.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

from t2ilib.errors import InputError
from t2ilib.metrics.extractors import VIEWS, Extractor
from t2ilib.metrics.fid import Fid
from t2ilib.metrics.inception_score import InceptionScore
from t2ilib.metrics.kid import Kid
from t2ilib.metrics.lpips import Lpips
from t2ilib.metrics.measured import Metric
from t2ilib.metrics.moments import Reference
from t2ilib.metrics.precision_recall import Precision, Recall
from t2ilib.metrics.references import Augmentation
from t2ilib.metrics.ssim import Ssim
from t2ilib.metrics.topiq import Topiq
from t2ilib.settings import SEED, TRUNCATION, Range, check_ranges

FEW = 10_000  # below so many pictures a Frechet distance mostly says how many they were
KID_SUBSET = 1000  # pictures, as its authors have it; half of them where there are fewer, or all subsets were one
ANY = "any"  # the splits together

Make = Callable[[Extractor, Reference | None, int], Metric]
METRICS: dict[str, Make] = {  # name -> what makes it of an extractor, a reference and the number of pictures
    "fid": lambda extractor, reference, n: Fid(extractor, reference),
    "kid": lambda extractor, reference, n: Kid(
        extractor, reference, subset_size=min(KID_SUBSET, n // 2, len(reference.features) // 2)
    ),
    "precision": lambda extractor, reference, n: Precision(extractor, reference),
    "recall": lambda extractor, reference, n: Recall(extractor, reference),
    "inception_score": lambda extractor, reference, n: InceptionScore(extractor),
    "lpips": lambda extractor, reference, n: Lpips(),
    "ssim": lambda extractor, reference, n: Ssim(),
    "topiq": lambda extractor, reference, n: Topiq(),
}
COMPARED = {"fid", "kid", "precision", "recall"}  # with a reference
EXTRACTORS = ("judge", "clip", "inception-legacy", "inception-clean")


@dataclass(frozen=True)
class Protocol:
    """How pictures are measured; `passes` through all pictures of the split, or `n` captions."""

    about: str  # whose it is, and what is our choice
    source: str  # of captions and real pictures, as t2ilib.data.load takes it
    side: Annotated[int, Range(least=8, most=4096)]  # pixels of the real pictures, and of fakes beside them
    extractor: str
    metrics: tuple[str, ...]  # beside those that every evaluation has
    captions: str = "test"  # split
    reference: str = "test"  # split that distances are to; ANY: all
    packed: Annotated[int, Range(least=0, most=4096)] = 0  # pixels from which the centre is cut; 0: none is
    n: Annotated[int, Range(least=0, most=10_000_000)] = 0  # captions, one picture each; 0: by passes
    passes: Annotated[int, Range(least=0, most=1000)] = 0  # through the split's pictures, a caption of each
    truncation: float | None = None  # of the noise, as in System.noise; None: plain normal noise
    augmentation: Augmentation | None = None  # of the reference
    judge: str = "clip"  # the CLIP of CLIP score and R-precision, as t2ilib.encoders.load_encoder takes it
    view: str = "correct"  # how this CLIP is shown pictures, of VIEWS; "released": as GALIP's code shows them
    seed: Annotated[int, SEED] = 0

    def __post_init__(self) -> None:
        """Raise InputError for what nothing can be measured by."""
        check_ranges(self, "protocol.")
        if unknown := [name for name in self.metrics if name not in METRICS]:
            raise InputError(f"protocol.metrics: {', '.join(unknown)}; there are {', '.join(METRICS)}")
        if self.extractor not in EXTRACTORS:
            raise InputError(f"protocol.extractor = {self.extractor}: must be one of {', '.join(EXTRACTORS)}")
        if self.view not in VIEWS:
            raise InputError(f"protocol.view = {self.view}: must be one of {', '.join(VIEWS)}")
        if bool(self.n) == bool(self.passes):
            raise InputError(f"protocol: n = {self.n}, passes = {self.passes}; give one of them, the other 0")
        if self.truncation is not None and not TRUNCATION.holds(self.truncation):
            raise InputError(f"protocol.truncation = {self.truncation}: must be {TRUNCATION}")

    @property
    def size(self) -> int:
        """Pixels at which the pictures are packed."""
        return self.packed or self.side

    def count(self, pictures: int) -> int:
        """Return how many pictures are painted where the split has so many."""
        return self.n or self.passes * pictures


INCEPTION = ("fid", "kid", "inception_score")
PROTOCOLS: dict[str, Protocol] = {
    "toy": Protocol(
        "New birds of the species that training shows.",
        *("toy", 64, "judge", ("kid", "precision", "recall", "inception_score", "ssim")),
        captions="validation",
        reference="validation",
        n=1000,
        judge="toy-clip-resnet",
    ),
    "toy_held_out": Protocol(
        "Birds of species that training never shows: pairs of colours of body and wings.",
        *("toy", 64, "judge", ("kid", "precision", "recall", "inception_score", "ssim")),
        n=1000,
        judge="toy-clip-resnet",
    ),
    "cub_dfgan_30k": Protocol(
        "DF-GAN's on CUB: ten passes through the test captions, noise cut at 2 sigma and scaled by 0.88, against test "
        "pictures flipped and shifted to 30,000. By how much they are shifted its authors do not say; 8 of 256 pixels "
        "is our choice.",
        *("data/birds", 256, "inception-legacy", INCEPTION),
        packed=304,
        passes=10,
        truncation=0.88,
        augmentation=Augmentation(),
    ),
    "cub_plain": Protocol(
        "CUB: ten passes through the test captions, plain noise, against the 2,933 test pictures as they are.",
        *("data/birds", 256, "inception-legacy", INCEPTION),
        packed=304,
        passes=10,
    ),
    "cub_clean": Protocol(
        "As cub_plain, resized as clean-fid does (Parmar et al. 2022).",
        *("data/birds", 256, "inception-clean", INCEPTION),
        packed=304,
        passes=10,
    ),
    "coco_30k": Protocol(
        "COCO 2014: 30,000 validation captions against the validation pictures, here the split test.",
        *("data/coco", 256, "inception-legacy", INCEPTION),
        packed=304,
        n=30_000,
    ),
    "faces_6k": Protocol(
        "MM-CelebA-HQ's: one of ten captions of each of 6,000 test pictures, against these.",
        *("data/faces", 256, "inception-legacy", (*INCEPTION, "lpips", "ssim")),
        n=6000,
    ),
    "flowers_test": Protocol(
        "DF-GAN's on Oxford-102: 30,000 captions of the 20 test classes, noise cut at 2 sigma and scaled by 0.88, "
        "against their 1,155 pictures, flipped and shifted to 30,000: as they are they would be too few for 2,048 "
        "features.",
        *("data/flowers", 256, "inception-legacy", INCEPTION),
        packed=304,
        n=30_000,
        truncation=0.88,
        augmentation=Augmentation(),
    ),
    "flowers_train": Protocol(
        "RAT-GAN's reference on Oxford-102: all training pictures, captions of the test split.",
        *("data/flowers", 256, "inception-legacy", INCEPTION),
        packed=304,
        n=30_000,
        reference="train",
    ),
    "galip_birds": Protocol(
        "GALIP's on CUB: twelve passes through the test captions, plain noise, against test pictures flipped and "
        "shifted to 30,000. They have the 224 pixels that it paints, where its own statistics are of 256; with LPIPS "
        "and SSIM against the picture of the same caption, and TOPIQ by itself, as its replication on one GPU has. The "
        "CLIP sees pictures as the released evaluation shows them, squeezed into [0.5, 1].",
        *("data/birds", 224, "inception-legacy", (*INCEPTION, "lpips", "ssim", "topiq")),
        packed=256,
        passes=12,
        augmentation=Augmentation(),
        view="released",
    ),
    "galip_coco": Protocol(
        "GALIP's on COCO 2014: 30,000 validation captions, plain noise, against the validation pictures of 256 pixels, "
        "where it paints 224; with LPIPS, SSIM and TOPIQ, as its replication on one GPU has. The CLIP sees pictures as "
        "the released evaluation shows them, squeezed into [0.5, 1]. How its authors cut the pictures they do not say; "
        "the centre of 304 pixels is our choice.",
        *("data/coco", 256, "inception-legacy", (*INCEPTION, "lpips", "ssim", "topiq")),
        packed=304,
        n=30_000,
        view="released",
    ),
}


def find_protocol(name: str) -> Protocol:
    """Return the protocol of that name; InputError names all."""
    if name not in PROTOCOLS:
        raise InputError(f"{name}: no such protocol; there are {', '.join(PROTOCOLS)}")
    return PROTOCOLS[name]
