"""A network's stages: the shapes that pass through it, and how many weights each part has."""

from collections.abc import Callable, Iterable

from torch import Tensor, nn


def weights(module: nn.Module, within: type[nn.Module] | None = None) -> int:
    """Return the number of learned weights of a module; with `within`, of its parts of that class alone."""
    parts = [module] if within is None else [part for part in module.modules() if isinstance(part, within)]
    return sum(parameter.numel() for part in parts for parameter in part.parameters())


def stages(blocks: Iterable[nn.Module], call: Callable[[], object], within: type[nn.Module] | None = None) -> None:
    """Print what each of `blocks` puts out while `call()` runs: its class, the shape, and how many weights it has.

    In the order of the computation. With `within` also how many of the weights lie in parts of that class.
    """

    def show(module: nn.Module, _: object, output: Tensor) -> None:
        of_class = f", {weights(module, within):>9,} in {within.__name__}" if within else ""
        print(f"{type(module).__name__:16} {tuple(output.shape)!s:20} {weights(module):>9,} weights{of_class}")

    hooks = [block.register_forward_hook(show) for block in blocks]
    try:
        call()
    finally:
        for hook in hooks:
            hook.remove()
