"""A network's stages: the shapes that pass through it, and how many weights each part has."""

from collections.abc import Callable, Iterable

from torch import Tensor, nn


def weights(module: nn.Module, within: type[nn.Module] | None = None) -> int:
    """Return the number of learned weights of a module; with `within`, of its parts of that class alone."""
    parts = [module] if within is None else [part for part in module.modules() if isinstance(part, within)]
    return sum({id(one): one.numel() for part in parts for one in part.parameters()}.values())  # parts may nest


def stages(blocks: Iterable[nn.Module], call: Callable[[], object], within: type[nn.Module] | None = None) -> None:
    """Print what each of `blocks` puts out while `call()` runs: its class, the shape, and how many weights it has.

    In the order of the computation. With `within` also how many of the weights lie in parts of that class.
    """

    def show(module: nn.Module, _: object, output: object) -> None:
        of_class = f", {weights(module, within):>9,} in {within.__name__}" if within else ""
        print(f"{type(module).__name__:16} {_shape(output):20} {weights(module):>9,} weights{of_class}")

    hooks = []
    try:
        for block in blocks:
            hooks.append(block.register_forward_hook(show))  # one by one: the next may be none
        call()
    finally:
        for hook in hooks:
            hook.remove()


def _shape(output: object) -> str:
    """Return the shape of what a block put out, of several tensors each; of anything else its class."""
    if isinstance(output, tuple | list):
        return ", ".join(map(_shape, output))
    return str(tuple(output.shape)) if isinstance(output, Tensor) else type(output).__name__
