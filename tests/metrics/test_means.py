import numpy as np
import pytest
import torch
from small import fill, pictures

from t2ilib.errors import InputError
from t2ilib.metrics.means import MeanScore


class Brightness(MeanScore):
    name = "brightness"

    def __init__(self):
        super().__init__({"extractor": "eye"})

    def scores(self, pictures, real):
        return pictures.mean(dim=(1, 2, 3))


class Odd(Brightness):
    def __init__(self, answer):
        super().__init__()
        self.answer = answer

    def scores(self, pictures, real):
        return self.answer


def test_the_mean_and_its_interval():
    shown = pictures(200)
    found = fill(Brightness(), shown).compute()
    values = shown.mean(dim=(1, 2, 3)).double().numpy()
    assert found.value == pytest.approx(values.mean(), abs=1e-3)
    error = 1.96 * values.std() / np.sqrt(200)
    assert found.interval == pytest.approx((values.mean() - error, values.mean() + error), abs=0.02)
    assert found.n == 200 and found.details == {"extractor": "eye", "interval": "bootstrap"}


def test_one_picture_has_no_interval():
    found = fill(Brightness(), pictures(1)).compute()
    assert found.interval is None and found.details["no_interval"]


@pytest.mark.parametrize("answer", [torch.zeros(3), torch.full((4,), torch.nan), torch.tensor(1.0)])
def test_scores_that_are_none_are_named(answer):
    with pytest.raises(InputError, match=r"brightness: .* it gives one per picture"):
        Odd(answer).update(pictures(4))


def test_no_pictures_are_named():
    with pytest.raises(InputError, match="none were shown"):
        Brightness().compute()
