"""The one door through which figures are saved: small files, and a manifest that says where each comes from."""

import io
import json
from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure
from PIL import Image

from t2ilib.files import ROOT, atomic, sha256, write_json
from t2ilib.plots.style import encoded, png_bytes
from t2ilib.provenance import relative

LIMIT = 300_000  # bytes a saved figure may take before its colours, then its size, are reduced


def save_figure(
    figure: Figure | Image.Image,
    name: str,
    by: str,
    sources: Sequence[str | Path] = (),
    folder: str | Path = ROOT / "figures",
) -> Path:
    """Write `<name>.png` to `folder` (default `figures/`) and its entry in `manifest.json`; return the picture's path.

    `by` is the command that rebuilds the figure; `sources` are the files it was drawn from, kept with their SHA-256.
    Pictures above 300 KB are reduced to 256 colours, then in size.
    """
    folder = Path(folder)
    content = _within_limit(png_bytes(figure))
    path = folder / f"{name}.png"
    with atomic(path) as temporary:
        temporary.write_bytes(content)
    manifest = folder / "manifest.json"
    entries = json.loads(manifest.read_text(encoding="utf-8")) if manifest.is_file() else {}
    size = Image.open(io.BytesIO(content)).size
    entries[name] = {"by": by, "sources": {relative(source): sha256(source) for source in sources}, "size": list(size)}
    write_json(manifest, dict(sorted(entries.items())))
    return path


def _within_limit(content: bytes) -> bytes:
    """Reduce a PNG's colours, then its size by steps of a tenth, until it takes at most `LIMIT` bytes."""
    original = Image.open(io.BytesIO(content)).convert("RGB")
    scale = 1.0
    while len(content) > LIMIT:
        size = (round(original.width * scale), round(original.height * scale))
        content = encoded(original.resize(size, Image.Resampling.LANCZOS).quantize(256))
        scale *= 0.9
    return content
