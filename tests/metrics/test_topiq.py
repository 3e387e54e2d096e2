import importlib.util
import sys

import pytest
import torch
from small import fill, pictures

from t2ilib.errors import InputError
from t2ilib.metrics.intake import as_saved
from t2ilib.metrics.topiq import Topiq, load_topiq


def test_the_network_is_shown_pictures_between_0_and_1():
    seen = []

    def network(images):
        seen.append(images)
        return images.amax(dim=(1, 2, 3))[:, None]

    shown = pictures(9)
    found = fill(Topiq(network), shown).compute()
    images = torch.cat(seen)
    assert torch.equal(images, (as_saved(shown) + 1) / 2) and images.min() >= 0
    assert found.value == pytest.approx(float(images.amax(dim=(1, 2, 3)).mean()), rel=1e-6)
    assert found.n == 9 and found.details["extractor"] == "topiq_nr"


def test_without_the_extra_the_error_names_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "pyiqa", None)  # as if it were not installed
    with pytest.raises(InputError, match=r"pip install 't2ilib\[quality\]'"):
        Topiq()


@pytest.mark.skipif(importlib.util.find_spec("pyiqa") is None, reason="the extra quality is not installed")
def test_without_weights_and_internet_the_error_names_file_folder_and_address(monkeypatch, tmp_path):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(InputError, match=r"cfanet_nr_koniq_res50-9a73138b.pth are not in .*pyiqa.* fetch https://"):
        load_topiq()
