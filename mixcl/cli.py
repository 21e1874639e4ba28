"""The command line: ``mixcl prepare | pretrain | finetune | evaluate | verify | export``.

Thin on purpose: each command reads a profile and calls one function of the package.  Bad input ends with one sentence
on standard error and exit code 2; ``--debug`` shows the traceback as well.
"""

import io
import os
import sys
import traceback
from pathlib import Path
from typing import Annotated

import typer

from mixcl import __version__
from mixcl.config import load_profile
from mixcl.config.settings import Experiment
from mixcl.errors import InputError
from mixcl.run import signals

app = typer.Typer(
    name="mixcl", no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None
)
data_app = typer.Typer(no_args_is_help=True, help="Collections of scans.")
app.add_typer(data_app, name="data")

Profile = Annotated[str, typer.Option("--profile", help="Name of a profile in reproduce/profiles, or a YAML file.")]
Set = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change one setting, e.g. loss.alpha=0.1.")
]
Out = Annotated[Path | None, typer.Option("--out", help="Folder of results; default results/PROFILE.")]
Workers = Annotated[int | None, typer.Option(help="Cases at a time; default one a core.", min=1)]
Restart = Annotated[bool, typer.Option("--restart", help="Drop what this run has done so far and begin again.")]


@app.command()
@data_app.command("prepare")
def prepare(
    profile: Profile = "phantom",
    overrides: Set = None,
    out: Out = None,
    workers: Workers = None,
    verify: Annotated[
        bool, typer.Option("--verify", help="Compare all with its checksums; mend what differs.")
    ] = False,
) -> None:
    """Check, orient, resample and store the profile's collections (phantoms are made first)."""
    config, folder = _load(profile, overrides, out)
    from mixcl.data.prepare.run import prepare as run

    typer.echo(run(config, folder, workers=workers, verify=verify).to_markdown())


@data_app.command("check")
def check(profile: Profile = "phantom", overrides: Set = None, out: Out = None, workers: Workers = None) -> None:
    """Read every file of the profile's collections and tell all that is wrong; exit code 1 when there is an error."""
    config, folder = _load(profile, overrides, out)
    from mixcl.data.check.run import check as run

    result = run(config, folder, workers=workers)
    typer.echo(result.to_markdown())
    typer.echo(f"checked: {folder / 'data' / 'check.html'}")
    if result.errors:
        raise typer.Exit(1)


@data_app.command("get")
def get(
    names: Annotated[list[str], typer.Argument(help="msd_liver, msd_lung, msd_pancreas, msd_spleen, kits19...")],
    to: Annotated[Path, typer.Option(help="The folder to set as data.root; a collection is a folder below it.")],
) -> None:
    """Download collections that need no account, and tell the steps for the others; takes up a broken download."""
    from mixcl.data.download import get as run

    for name in names:
        typer.echo(run(name, to))


@app.command()
def pretrain(
    profile: Profile = "phantom",
    overrides: Set = None,
    out: Out = None,
    job: Annotated[str, typer.Option(help="Name of the run's folder below OUT/runs.")] = "pretrain",
    restart: Restart = False,
) -> None:
    """Pre-train with MixCL on the pooled collections (Eq. 2); takes up a stopped run."""
    config, folder = _load(profile, overrides, out)
    from mixcl.trainer import pretrain as run

    _say(f"pre-trained: {run(config, folder, job=job, restart='always' if restart else 'never')}")


@app.command()
def finetune(
    task: Annotated[str, typer.Option(help="A fine-tuning collection of the profile, e.g. msd_spleen or btcv.")],
    profile: Profile = "phantom",
    overrides: Set = None,
    out: Out = None,
    percent: Annotated[float, typer.Option(help="Labelled share of the training part, in percent.")] = 100,
    fold: Annotated[int, typer.Option(help="Fold, from 0.", min=0)] = 0,
    seed: Annotated[int, typer.Option(help="With the fold: which scans, fresh weights and patches.", min=0)] = 0,
    init: Annotated[str | None, typer.Option(help="A pre-training job, its folder or a .safetensors file.")] = None,
    arm: Annotated[str | None, typer.Option(help="Name in tables; default scratch, or mixcl with --init.")] = None,
    restart: Restart = False,
) -> None:
    """Fine-tune a MONAI UNETR on one fold, from scratch or from pre-trained weights."""
    config, folder = _load(profile, overrides, out)
    from mixcl.trainer import finetune as run

    job = run(
        config, folder, task=task, percent=percent, fold=fold, seed=seed,
        init=None if init is None else _job_folder(init, folder),
        arm=arm or ("scratch" if init is None else "mixcl"), restart="always" if restart else "never",
    )  # fmt: skip
    _say(f"fine-tuned: {job}")


@app.command()
def evaluate(
    run: Annotated[str, typer.Option(help="A fine-tuning job or its folder.")],
    profile: Profile = "phantom",
    overrides: Set = None,
    out: Out = None,
    save_predictions: Annotated[bool, typer.Option(help="Write label maps on the grid of the original scans.")] = False,
) -> None:
    """Predict the test cases of a fine-tuned model and write Dice, HD95 and surface Dice per organ and case."""
    config, folder = _load(profile, overrides, out)
    from mixcl.evaluate import evaluate as measure

    job = _job_folder(run, folder)
    table = measure(config, folder, job, save_predictions=save_predictions)
    typer.echo(table.groupby("organ", sort=False)[["dice", "hd95_mm", "surface_dice"]].mean().round(4).to_string())
    typer.echo(f"evaluated: {job / 'cases.csv'}")


@app.command()
def export(
    to: Annotated[Path, typer.Option(help="The .safetensors file to write.")],
    run: Annotated[str, typer.Option(help="A finished pre-training job or its folder.")] = "pretrain",
    profile: Profile = "phantom",
    overrides: Set = None,
    out: Out = None,
    transfer: Annotated[str, typer.Option(help="encoder, vit or all.")] = "encoder",
) -> None:
    """Write the pre-trained encoder as a file that a stock MONAI UNETR loads."""
    from mixcl.handover import export_encoder

    _, folder = _load(profile, overrides, out)
    typer.echo(export_encoder(_job_folder(run, folder), to, transfer))


@app.command()
def verify(
    profile: Profile = "phantom",
    overrides: Set = None,
    out: Out = None,
    expected: Annotated[Path | None, typer.Option(help="Expected values; default those committed.")] = None,
    write: Annotated[Path | None, typer.Option(help="Write this run's values to a file instead.")] = None,
    other: Annotated[list[Path] | None, typer.Option(help="With --write: a run where bits differ.")] = None,
) -> None:
    """Compare a finished run with the expected values, cell by cell; exit code 1 when a cell is off."""
    config, folder = _load(profile, overrides, out)
    from mixcl.results import verify as verification

    if write is not None:
        verification.write_expected(config, folder, write, other or ())
        typer.echo(f"expected values: {write}")
        return
    checks = verification.verify(config, folder, expected)
    typer.echo(verification.report(checks))
    if not all(check.holds for check in checks):
        raise typer.Exit(1)


def _load(profile: str, overrides: list[str] | None, out: Path | None) -> tuple[Experiment, Path]:
    """The settings and the folder of results that the shared options name."""
    config = load_profile(profile, overrides or ())
    return config, out if out is not None else Path("results") / config.profile


def _say(text: str) -> None:
    """Once, however many processes torchrun has started."""
    if os.environ.get("RANK", "0") == "0":
        typer.echo(text)


def _job_folder(name: str, out: Path) -> Path:
    """A job's name below OUT/runs, or a path."""
    below = out / "runs" / name
    return below if below.exists() else Path(name)


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


def main(arguments: list[str] | None = None) -> None:
    """Run the command line; exit code 2 for bad input, 130 for an interruption, 143 for SIGTERM."""
    words = sys.argv[1:] if arguments is None else arguments
    debug = "--debug" in words  # wherever it stands
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and stream.errors == "strict":
            stream.reconfigure(errors="backslashreplace")  # a terminal that is not UTF-8, a name that is
    try:
        with signals.leaving():
            app(args=[word for word in words if word != "--debug"], prog_name="mixcl")
    except InputError as error:
        _fail(str(error), 2, debug)
    except signals.Stopped as stop:
        _fail(str(stop), stop.code, False)
    except Exception as error:
        _fail(f"unexpected {type(error).__name__}: {error} (run again with --debug for the traceback)", 1, debug)


def _fail(message: str, code: int, debug: bool) -> None:
    if debug:
        traceback.print_exc()
    print(f"mixcl: {' '.join(message.split())}", file=sys.stderr)
    sys.exit(code)
