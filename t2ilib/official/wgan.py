"""The stabilised reimplementation's WGAN: the networks and names of its GAN-CLS, whose discriminator is the critic."""

from t2ilib.models.wgan import WGANConfig
from t2ilib.official.gancls import NAMES, sizes
from t2ilib.official.released import Released

WGAN = Released(
    networks={"generator": "generator", "critic": "discriminator"},
    names=NAMES,
    config=lambda entries: WGANConfig(**sizes(entries), halve_negatives=False),
)
