"""Text-to-image GANs, from the 2016 conditional DCGAN to GALIP: one paper, one file, one chapter."""

__version__ = "0.1.0"
