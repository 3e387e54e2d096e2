"""What all tests share: one thread per process, no network, and the photographs beside the repository."""

import os
from pathlib import Path

import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("MPLBACKEND", "agg")

ROOT = Path(__file__).resolve().parent.parent
SHARED_DATA = ROOT.parent / "shared" / "data"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of real photographs for tests; they skip where it is absent."""
    if not SHARED_DATA.is_dir():
        pytest.skip(f"real photographs are not here ({SHARED_DATA.name} folder beside the repository)")
    return SHARED_DATA
