"""What the tests of released checkpoints share: the golden helpers, and how a refusal is read."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from t2ilib import official
from t2ilib.errors import InputError

sys.path.insert(0, str(Path(__file__).parent.parent / "golden"))  # for `import parity`


@pytest.fixture
def refused(request) -> Callable[[Any], str]:
    """Return a function from a checkpoint to the message that refuses it, for the `SYSTEM` of the test's file."""

    def message(checkpoint: Any) -> str:
        with pytest.raises(InputError) as caught:
            official.load(request.module.SYSTEM, checkpoint)
        return str(caught.value)

    return message
