"""The command line, `t2i`: data, sample, evaluate, export, the course, and what `commands` holds.

The library is imported inside the commands, so that `--help` answers at once.
"""

import errno
import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from t2ilib import __version__
from t2ilib.commands import catalogue, comparing, measuring, runs, training
from t2ilib.commands.options import Device, Missing, Truncation, echo
from t2ilib.errors import InputError, one_line, warn

NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)  # a write without a file's name in the error
DRAWN = ("captions", "file", "per_caption", "seed", "truncation")  # what a picture's own recipe says
app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


def _version(asked: bool) -> None:
    if asked:
        echo(f"t2ilib {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Train, sample and measure text-to-image GANs. Start with: t2i train gancls --steps 200."""


@app.command()
def data(
    source: Annotated[str, typer.Argument(help='"toy", or a path: folder or zip with metadata.jsonl, CUB folder.')],
    size: Annotated[int, typer.Option(help="Side of the packed pictures, in pixels.")] = 64,
    allow_missing: Missing = False,
    sheet: Annotated[Path | None, typer.Option(help="Write a PNG with 64 of the pictures here.")] = None,
) -> None:
    """Pack captioned images once, and say what is in them.

    Later commands open the packed set, under data/packed, in no time.

    Example: t2i data toy --sheet birds.png
    """
    import numpy as np

    from t2ilib import data as datasets
    from t2ilib.plots import contact_sheet

    options = {"allow_missing": True} if allow_missing else {}
    dataset = datasets.load(source, size, **options)
    echo(f"{len(dataset)} pictures of {dataset.size}x{dataset.size}, {len(dataset.class_names)} classes")
    for split in sorted(set(dataset.splits.tolist())):
        echo(f"  {split}: {int((dataset.splits == split).sum())}")
    echo(f'first caption: "{dataset.captions[0][0]}"')
    echo(f"packed: {dataset.folder}")
    if sheet:
        rows = np.linspace(0, len(dataset) - 1, min(64, len(dataset))).astype(int)
        contact_sheet(dataset.images[rows], columns=8, path=sheet)
        echo(f"wrote {sheet}")


for command in (training.train, training.resume, runs.stop, runs.follow, runs.runs):
    app.command()(command)
app.command("list")(catalogue.show)
app.command()(catalogue.cache)
app.command()(measuring.evaluate)
app.command()(comparing.compare)


@app.command()
def sample(
    context: typer.Context,
    source: Annotated[
        str | None,
        typer.Argument(help="A run folder, a checkpoint, shipped weights (gancls_toy), or dfgan:FILE as released."),
    ] = None,
    captions: Annotated[list[str] | None, typer.Argument(help="Captions, each in quotes.")] = None,
    file: Annotated[Path | None, typer.Option(help="Text file with one caption per line.")] = None,
    out: Annotated[
        Path, typer.Option(help="PNG to write, one row per caption; or a folder, for one square grid per caption.")
    ] = Path("samples.png"),
    per_caption: Annotated[int, typer.Option(min=1, help="Pictures of each caption.")] = 8,
    seed: Annotated[int, typer.Option(help="Seed of the noise.")] = 0,
    truncation: Truncation = None,
    like: Annotated[
        Path | None, typer.Option(help="A PNG of the explorer, to be painted again; with a source by other weights.")
    ] = None,
    device: Device = None,
) -> None:
    """Draw pictures of captions with a trained system.

    Example: t2i sample gancls_toy "a red bird with black wings and a white belly."
    """
    from t2ilib.encoders.vocabulary import remarks
    from t2ilib.sampler import check_drawing
    from t2ilib.sampling import load_sampler
    from t2ilib.sheets import Captions, check_target, write_sheets

    if like is not None:
        if source is not None and " " in source.strip() and not Path(source).exists():
            raise InputError(
                f'"{one_line(source)}": with --like a source stands here, no caption; the picture has its own'
            )
        given = [name for name in DRAWN if context.get_parameter_source(name).name == "COMMANDLINE"]
        if given:
            named = ", ".join(f"--{name}".replace("_", "-") if name != "captions" else name for name in given)
            raise InputError(f"--like {like}: says all that is drawn; leave {named} out (before it stands a source)")
        echo(_painted_again(like, source, out, device))
        return
    if source is None:
        raise InputError('no source given; for example: t2i sample gancls_toy "a small blue bird."')
    check_drawing(seed, per_caption, truncation)
    lines = Captions(captions or [], file)
    check_target(out, len(lines))
    sampler = load_sampler(source, device)
    for remark in remarks(sampler.encoder, lines):
        warn(remark)
    echo(write_sheets(sampler, lines, out, seed, per_caption, truncation))


def _painted_again(like: Path, source: str | None, out: Path, device: str | None) -> str:
    """Paint the picture of a saved PNG again, into another; return a line about it."""
    from t2ilib.explore import Studio, read_receipt, save_picture
    from t2ilib.explore.receipts import check_target

    check_target(out)
    if out.exists() and out.samefile(like):
        raise InputError(f"{out}: is the picture that is to be painted again; write to another file (--out)")
    receipt, studio = read_receipt(like), Studio(device)
    picture, made = studio.again(receipt, source)
    save_picture(out, picture, made)
    return f'wrote {out}: "{one_line(made.caption)}" by {made.system}'


@app.command()
def export(
    source: Annotated[Path, typer.Argument(help="A run folder, or a checkpoint of a system.")],
    to: Annotated[Path, typer.Option(help="File to write, .safetensors; of an encoder or judge a folder.")],
    about: Annotated[str, typer.Option(help="One line, with a system: data, length, result.")] = "",
    whole: Annotated[bool, typer.Option("--whole", help="All networks of a system, to train on from.")] = False,
) -> None:
    """Write what a run was for, in half precision: a system's averaged generator, an encoder, the judge."""
    from t2ilib.sampling import export as write
    from t2ilib.training import Run

    if source.suffix == ".safetensors" and to.suffix != ".safetensors":
        raise InputError(f"{to}: give a .safetensors file; of an encoder or the judge export the run folder")
    echo(f"wrote {write(Run.open(source), to, about, whole)}")


@app.command()
def course(
    scale: Annotated[str, typer.Option(help="How long the chapters train: smoke, cpu (minutes) or gpu.")] = "cpu",
    only: Annotated[
        str | None, typer.Option(help="Run the chapter of this number alone, and leave the figures.")
    ] = None,
    solutions: Annotated[bool, typer.Option("--solutions", help="Run the solutions in the chapters' place.")] = False,
) -> None:
    """Run every chapter in order, then rebuild the figures; executed copies go to runs/course."""
    from t2ilib.course import run_course

    raise typer.Exit(run_course(scale, only, solutions))


@app.command()
def figures(
    names: Annotated[list[str] | None, typer.Argument(help="Figures to rebuild; default all.")] = None,
    run: Annotated[Path | None, typer.Option(help="A finished run of yours to draw, in their place.")] = None,
    out: Annotated[Path | None, typer.Option(help="With --run: folder to draw into; default RUN/figures.")] = None,
) -> None:
    """Rebuild the figures and tables of README and chapters from shipped weights and the files of runs.

    With --run: draw losses, scores of D, a sheet, ways between captions and noises of one run of yours.
    """
    from t2ilib.figures import of_run, rebuild

    if run is None and out is not None:
        raise InputError(f"--out {out}: the repository's figures lie in figures/; name a run of yours (--run)")
    if run is not None and names:
        raise InputError(f"--run {run}: draws all figures of a run; leave {', '.join(names)} out")
    done = (f"figures/{name}" for name in rebuild(names or [])) if run is None else of_run.draw(run, out)
    for one in done:
        echo(one)


def main() -> None:
    """Run the command line; bad input ends with one line and exit status 2 instead of a traceback."""
    if hasattr(sys.stdout, "reconfigure"):  # it may be closed
        sys.stdout.reconfigure(errors="backslashreplace")  # a terminal without UTF-8 shows \u9e1f
    try:
        sys.exit(app(standalone_mode=False))
    except InputError as error:
        _fail(str(error))
    except typer.Abort:  # Ctrl-C where nothing is trained
        sys.exit(130)
    except BrokenPipeError:  # whoever read the output has read enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except OSError as error:
        if error.filename is None and error.errno not in NO_ROOM:
            raise
        _fail(f"{error.filename or 'a file'}: {error.strerror}; what was written before is safe")
    except Exception as error:
        if not hasattr(error, "format_message"):
            raise
        if said := error.format_message():  # a misspelt command or option
            _fail(f"{said} (t2i --help, t2i COMMAND --help)")
        sys.exit(2)  # no command at all, after the help


def _fail(message: str) -> None:
    echo(f"error: {' '.join(message.split())}", err=True)
    sys.exit(2)


if __name__ == "__main__":
    main()
