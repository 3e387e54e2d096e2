"""Library code shown in a chapter, where that code is the lesson."""

import builtins
import inspect
import textwrap


def show_source(*objects: object) -> None:
    """Show the source of functions and classes: with its colours in a notebook, printed elsewhere."""
    text = "\n\n".join(textwrap.dedent(inspect.getsource(thing)).rstrip() for thing in objects)
    display = getattr(builtins, "display", None)  # IPython's, in a notebook
    if display is None:
        print(text)
    else:
        display({"text/markdown": f"```python\n{text}\n```", "text/plain": text}, raw=True)
