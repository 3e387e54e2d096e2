"""The command that measures: evaluate."""

from pathlib import Path
from typing import Annotated

import typer
import yaml

from t2ilib.commands.options import Device, Missing, Source, Truncation, echo
from t2ilib.errors import InputError
from t2ilib.files import RUNS

FIXED = ("split", "n", "truncation", "judge")  # by a protocol


def evaluate(
    context: typer.Context,
    source: Annotated[
        str, typer.Argument(help="A run folder, a checkpoint, shipped weights (gancls_toy), or dfgan:FILE as released.")
    ],
    protocol: Annotated[
        str | None, typer.Option(help="A protocol of the literature by name: toy_held_out, cub_dfgan_30k, ...")
    ] = None,
    data_source: Source = None,
    allow_missing: Missing = False,
    split: Annotated[str | None, typer.Option(help="Split of captions and reference pictures.")] = None,
    n: Annotated[int | None, typer.Option(min=2, help="Pictures, one caption each; default the recipe's.")] = None,
    seed: Annotated[int, typer.Option(help="Seed of captions and noise; a protocol has its own.")] = 0,
    truncation: Truncation = None,
    judge: Annotated[
        str | None, typer.Option(help="CLIP that scores the fit: toy-clip, toy-clip-resnet, clip, a folder.")
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder of the results file.")] = RUNS / "results",
    device: Device = None,
) -> None:
    """Measure a trained system on captions it has not seen; print the numbers and write a results file.

    With --protocol as the literature does: captions, number, truncation, reference, resize are then its. Several
    processes (torchrun --nproc-per-node 4 -m t2ilib.cli evaluate ...) share the pictures.

    Example: t2i evaluate gancls_toy
    """
    from t2ilib.devices import device_named, this_process
    from t2ilib.encoders import load_encoder
    from t2ilib.measurement import check_evaluation, evaluate_protocol, evaluate_sampler
    from t2ilib.metrics.drawing import Team
    from t2ilib.metrics.protocols import find_protocol
    from t2ilib.metrics.results import check_folder, read_result, table, write_result
    from t2ilib.provenance import told_versions
    from t2ilib.sampling import load_sampler, weights_told

    check_evaluation(n, seed, truncation)
    check_folder(out)
    if protocol is not None:
        find_protocol(protocol)
        if given := [f"--{name}" for name in FIXED if context.params[name] is not None]:
            raise InputError(f"--protocol {protocol}: says so itself; leave {', '.join(given)} out")
    team = Team.here()
    if team.size > 1 and protocol is None:
        raise InputError("several processes: they share the pictures of a protocol; name one (--protocol)")
    if team.size > 1 and device is not None:
        this_process().device = device_named(device)
    judge_encoder = load_encoder(judge) if judge else None
    sampler, weights = load_sampler(source, device), weights_told(source)
    if protocol is None:
        drawn = {"n": n, "seed": seed, "truncation": truncation, "allow_missing": allow_missing}
        result = evaluate_sampler(sampler, data_source, split, judge_encoder=judge_encoder, **drawn)
    else:
        own = seed if context.get_parameter_source("seed").name == "COMMANDLINE" else None
        result = evaluate_protocol(sampler, protocol, data_source, seed=own, allow_missing=allow_missing, team=team)
    if team.rank:
        return
    result["protocol"] |= weights
    path = write_result(out, **result)
    told = read_result(path)["protocol"]
    for line in yaml.safe_dump(result["metrics"], sort_keys=False).splitlines():
        echo(f"{line}  # {told['clip_score']}" if line.startswith("clip_score:") and told["clip_score"] else line)
    for line in table(path) if protocol else []:
        echo(line)
    echo(f"# commit {told['commit']}, {told_versions(told)}, {told['seconds']} s")
    echo(f"wrote {path}")
