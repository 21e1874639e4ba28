"""The commands of ``mixcl`` but for those of the data.

Each reads the settings and calls one function of the package, which is imported then.  The first sentence of its
docstring is its line in ``mixcl --help``, which 80 columns must hold.
"""

from pathlib import Path
from typing import Annotated

import typer

from mixcl import __version__
from mixcl.cli import data, shared
from mixcl.cli.shared import MAIN_PROFILE, Given, Out, Profile, Restart, Set, Where, hint, load, options, say
from mixcl.errors import InputError

NAMES = {"help_option_names": ["-h", "--help"]}
app = typer.Typer(
    name="mixcl", no_args_is_help=True, pretty_exceptions_enable=False, rich_markup_mode=None, context_settings=NAMES
)
app.add_typer(data.app, name="data")
app.command()(data.prepare)


@app.command()
def pretrain(
    profile: Profile = MAIN_PROFILE,
    overrides: Set = None,
    out: Out = None,
    job: Annotated[str, typer.Option(help="Name of the run's folder below OUT/runs.")] = "pretrain",
    restart: Restart = False,
) -> None:
    """Pre-train on all collections together.

    With MixCL (Eq. 2), or as pretrain.method says; a stopped run is taken up.
    """
    config, folder = load(profile, overrides, out)
    from mixcl.trainer import pretrain as run

    made = run(config, folder, job=job, restart=shared.restarting(restart))
    say(f"pre-trained: {made}")
    words = options(profile, overrides, out)
    first = [["finetune", "--task", task, "--init", job, *words] for task in config.data.finetune[:1]]
    hint(*first, ["export", "--run", made, "--to", "encoder.safetensors"])


@app.command()
def finetune(
    task: Annotated[str, typer.Option(help="A fine-tuning collection of the profile, e.g. msd_spleen or btcv.")],
    profile: Profile = MAIN_PROFILE,
    overrides: Set = None,
    out: Out = None,
    percent: Annotated[float, typer.Option(help="Labelled share of the training part, in percent.")] = 100,
    fold: Annotated[int, typer.Option(help="Fold, from 0.", min=0)] = 0,
    seed: Annotated[int, typer.Option(help="With the fold: which scans, fresh weights and patches.", min=0)] = 0,
    init: Annotated[str | None, typer.Option(help="A pre-training job, its folder or a .safetensors file.")] = None,
    arm: Annotated[str | None, typer.Option(help="Name in tables; default scratch, or mixcl with --init.")] = None,
    restart: Restart = False,
) -> None:
    """Fine-tune a MONAI UNETR on one fold of a task.

    From scratch, or with --init from pre-trained weights; a stopped run is taken up.
    """
    if init is None and arm == "mixcl":
        raise InputError("--arm mixcl is what starts from a pre-training, and there is no --init; give one")
    config, folder = load(profile, overrides, out)
    from mixcl.trainer import finetune as run

    job = run(
        config, folder, task=task, percent=percent, fold=fold, seed=seed,
        init=None if init is None else shared.start_of(init, folder),
        arm=arm if arm is not None else "scratch" if init is None else "mixcl",
        restart=shared.restarting(restart),
    )  # fmt: skip
    say(f"fine-tuned: {job}")
    hint(["evaluate", "--run", job])


@app.command()
def evaluate(
    run: Annotated[str, typer.Option(help="A fine-tuning job or its folder.", autocompletion=shared.known_runs)],
    profile: Given = None,
    overrides: Set = None,
    out: Out = None,
    save_predictions: Annotated[bool, typer.Option(help="Write label maps on the grid of the original scans.")] = False,
) -> None:
    """Measure a fine-tuned model on its test cases.

    Dice, HD95 and surface Dice per organ and case.  The settings are those of the run.
    """
    config, folder, job = shared.open_run(run, profile, overrides, out)
    from mixcl.evaluate import evaluate as measure

    table = measure(config, folder, job, save_predictions=save_predictions)
    typer.echo(table.groupby("organ", sort=False)[["dice", "hd95_mm", "surface_dice"]].mean().round(4).to_string())
    typer.echo(f"evaluated on the {config.evaluate.grid} grid: {job / 'cases.csv'}")
    known = shared.has_expected(config.profile) and (folder / "RUN.json").is_file()
    export_run = ["export", "--out", folder, "--to", "encoder.safetensors"]
    hint(["verify", *options(config.profile, (), folder)] if known else export_run)


@app.command()
def export(
    to: Annotated[Path, typer.Option(help="A .safetensors file, or the folder of a MONAI bundle, to write.")],
    run: Annotated[
        str, typer.Option(help="A finished job or its folder.", autocompletion=shared.known_runs)
    ] = "pretrain",
    profile: Given = None,
    overrides: Set = None,
    out: Out = None,
    transfer: Annotated[
        str | None, typer.Option(help="Of a pre-training: encoder, vit or all; default finetune.transfer.")
    ] = None,
) -> None:
    """Write a network that others can use.

    Of a pre-training an encoder that a stock MONAI UNETR loads; of a fine-tuning its weights, or a MONAI bundle.  The
    settings are those of the run, or of --profile how to evaluate; --set of what decided its weights is refused.
    """
    config, _, job = shared.open_run(run, profile, overrides, out, err=True)  # standard output is Python
    from mixcl.export import export as write

    typer.echo(write(job, to, transfer, config))


@app.command()
def predict(
    scans: Annotated[list[Path], typer.Argument(help="Scans, DICOM series, folders, or .txt lists of them.")],
    run: Annotated[
        str,
        typer.Option(help="A fine-tuning job or its folder, or what export wrote.", autocompletion=shared.known_runs),
    ],
    out: Annotated[Path, typer.Option(help="Folder for the label maps, named after their scans, on these' grids.")],
) -> None:
    """Label scans that nobody has labelled.

    On the grid of each scan; what is there is kept, and what is wrong with a scan does not stop the others.
    """
    given = Path(run)
    carried = given.is_file() or (given / "configs").is_dir()
    from mixcl.run.folders import find_run

    network = given if carried else find_run(run)
    from mixcl.segment import predict as label  # after a mistake in --run

    maps = label(network, scans, out)
    say(f"labelled: {len(maps)} scans in {out}")


@app.command()
def runs(profile: Where = None, out: Out = None) -> None:
    """List the runs that there are, and how far they are.

    Of one folder of results, or of all below ./results.  Dice is the mean over cases of their means over organs.
    """
    from mixcl.run.folders import listed

    if out is not None:
        shared.check_folder("--out", out, there=True)
    elif profile is not None:
        out = load(profile, (), None)[1]
    folders = {folder: rows for folder, rows in listed(out).items() if rows}
    for folder, rows in folders.items():
        typer.echo(f"{folder}: {len(rows)} runs")
        width = max(len(row.job) for row in rows)
        for row in rows:
            dice = "" if row.dice is None else f"Dice {row.dice:.4f}"
            typer.echo(f"  {row.job:{width}}  {row.state:9}  {row.steps:>16}  {dice:11}  {row.date}".rstrip())
    if not folders:
        typer.echo(f"no runs in {out or 'results'}")
        hint(["prepare", *options(profile or MAIN_PROFILE, (), out)])


@app.command()
def verify(
    profile: Profile = MAIN_PROFILE,
    overrides: Set = None,
    out: Out = None,
    expected: Annotated[Path | None, typer.Option(help="Expected values; default those committed.")] = None,
    write: Annotated[Path | None, typer.Option(help="Write this run's values to a file instead.")] = None,
    other: Annotated[list[Path] | None, typer.Option(help="With --write: a run where bits differ.")] = None,
    full: Annotated[bool, typer.Option("--full", help="Hash every scan and measure every prediction again.")] = False,
) -> None:
    """Compare a finished run with the expected values.

    Also goes over it link by link; exit code 1 when something is off.
    """
    config, folder = load(profile, overrides, out)
    from mixcl.results import verify as verification

    if write is not None and (expected is not None or full):
        raise InputError("--write makes the expected values; leave --expected and --full out")
    if write is None and other:
        raise InputError("--other is for --write, which says where the expected values go")
    from mixcl.evaluate import measured_again

    if write is not None:
        verification.write_expected(config, folder, write, other or (), measure=measured_again)
        typer.echo(f"expected values: {write}")
        return
    checks = verification.verify(config, folder, expected, measure=measured_again, full=full)
    typer.echo(verification.report(checks))
    if not all(check.holds for check in checks):
        raise typer.Exit(1)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"mixcl {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Show it.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of what goes wrong; anywhere.")] = False,
) -> None:
    """Label-aware contrastive pre-training for medical image segmentation (MixCL), reproducibly."""
