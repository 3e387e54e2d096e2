import subprocess
import sys

import pytest

import t2ilib


def test_modules_load_when_they_are_named_and_not_before():
    code = "import sys, t2ilib; assert 'torch' not in sys.modules; print(t2ilib.official.load.__module__)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "t2ilib.official"
    with pytest.raises(AttributeError, match="no attribute 'moon'"):
        _ = t2ilib.moon
