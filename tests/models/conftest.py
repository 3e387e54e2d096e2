"""What the tests of systems share: batches that hold what a system says it needs, and nothing else."""

from collections.abc import Callable

import pytest
import torch

from t2ilib.features import Batch, Text
from t2ilib.task import System


@pytest.fixture
def make_batch() -> Callable[..., Batch]:
    """Return a function from a system, and the number of pictures, to a batch: the same for systems of equal sizes."""

    def made(system: System, count: int = 4) -> Batch:
        config, generator = system.config, torch.Generator().manual_seed(1)

        def pictures() -> torch.Tensor:
            return torch.rand(count, 3, config.image_size, config.image_size, generator=generator) * 2 - 1

        rows, sentence = torch.arange(count), torch.randn(count, config.embedding_dim, generator=generator)
        return Batch(
            images=pictures(),
            captions=rows[None],
            class_ids=rows,
            indices=rows,
            text=Text(sentence),
            mismatched=pictures() if system.needs.mismatched else None,
        )

    return made
