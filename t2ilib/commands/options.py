"""What several commands share: options, and the one way to print."""

from typing import Annotated

import typer

from t2ilib.errors import printable

Set = Annotated[
    list[str] | None,
    typer.Option("--set", help="Change a recipe key, as --set training.seed=3 or --set model.ngf=32; repeatable."),
]
Source = Annotated[
    str | None,
    typer.Option(
        "--data", help='Pictures: "toy", a folder or zip with metadata.jsonl, CUB in AttnGAN\'s layout, a packed set.'
    ),
]
Missing = Annotated[bool, typer.Option(help="Take the pictures that are there of those the lists name.")]
Device = Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1, mps; default the accelerator, if there is one.")]
Truncation = Annotated[
    float | None,
    typer.Option(help="Leave out noise beyond 2 sigma, scale the rest by this; DF-GAN is evaluated at 0.88."),
]
Processes = Annotated[int, typer.Option(help="Processes, one GPU each.")]


def echo(line: object = "", *, err: bool = False) -> None:
    r"""Print one line: names of files and strangers' text are shown, and never obeyed by the terminal (\x1b, \n)."""
    typer.echo(printable(line), err=err)
