"""Importers: each turns one layout of captioned pictures into `CaptionedImages`."""
