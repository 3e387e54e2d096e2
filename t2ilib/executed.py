"""Executed notebooks that can be committed: nothing in them changes with every run, and they carry their scale.

`t2i course` writes its copies so. The mark in the notebook's metadata holds the scale and a digest of the code and its
outputs: when a cell was edited or run again since, the mark no longer fits, and the notebook counts as unmarked.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

from t2ilib import files

MARK = "t2ilib"  # key of the notebook's metadata
FLEETING = {"execution", "papermill", "ExecuteTime", "scrolled"}  # metadata that changes with every run


def digest(notebook: Mapping) -> str:
    """Return the SHA-256 of the code cells and their outputs, however their lines are stored."""
    code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    shown = [[_joined(cell["source"]), _joined(_merged(cell["outputs"]))] for cell in code]
    return hashlib.sha256(json.dumps(shown, sort_keys=True, ensure_ascii=False).encode()).hexdigest()


def scale_of(notebook: Mapping) -> str | None:
    """Return the scale at which a notebook's outputs were made; None where no mark says it of these outputs."""
    mark = notebook["metadata"].get(MARK)
    return mark.get("scale") if isinstance(mark, dict) and mark.get("digest") == digest(notebook) else None


def finish(path: Path, scale: str) -> None:
    """Clean an executed notebook's metadata, and mark it with the scale at which it ran."""
    notebook = files.read_json(path, "run it again")
    for cell in notebook["cells"]:
        cell["metadata"] = {key: value for key, value in cell["metadata"].items() if key not in FLEETING and value}
        if cell["cell_type"] == "code":
            cell["outputs"] = _merged(cell["outputs"])
    kept = {"kernelspec": notebook["metadata"]["kernelspec"], "language_info": {"name": "python"}}
    notebook["metadata"] = kept | {MARK: {"digest": digest(notebook), "scale": scale}}
    files.write_text(path, json.dumps(notebook, indent=1, ensure_ascii=False) + "\n")


def _merged(outputs: list[dict]) -> list[dict]:
    """Return outputs in which what one stream printed in pieces is one piece: where it is cut differs by the run."""
    merged: list[dict] = []
    for output in outputs:
        streams = output["output_type"] == "stream" and merged and merged[-1]["output_type"] == "stream"
        if streams and merged[-1]["name"] == output["name"]:
            text = _joined(merged[-1]["text"]) + _joined(output["text"])
            merged[-1] = merged[-1] | {"text": text.splitlines(keepends=True)}
        else:
            merged.append(output)
    return merged


def _joined(value: object) -> object:
    """Return a piece of a notebook with every list of lines as one text, and without execution counts."""
    if isinstance(value, dict):
        return {key: _joined(part) for key, part in value.items() if key != "execution_count"}
    if isinstance(value, list) and value and all(isinstance(part, str) for part in value):
        return "".join(value)
    return [_joined(part) for part in value] if isinstance(value, list) else value
