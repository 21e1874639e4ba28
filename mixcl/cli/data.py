"""``mixcl data``: get, check and prepare collections."""

from pathlib import Path
from typing import Annotated

import typer

from mixcl.cli.shared import MAIN_PROFILE, Out, Profile, Set, Workers, check_folder, hint, load, options, say

app = typer.Typer(no_args_is_help=True, help="Collections of scans: get, check and prepare them.")


@app.command()
def prepare(
    profile: Profile = MAIN_PROFILE,
    overrides: Set = None,
    out: Out = None,
    workers: Workers = None,
    verify: Annotated[
        bool, typer.Option("--verify", help="Compare all with its checksums; mend what differs.")
    ] = False,
) -> None:
    """Make scans ready: check, orient, resample, store.

    All collections of the profile; phantoms are made first.  What is there is kept.
    """
    config, folder = load(profile, overrides, out)
    from mixcl.data.prepare.run import prepare as run

    typer.echo(run(config, folder, workers=workers, verify=verify).to_markdown())
    hint(["pretrain", *options(profile, overrides, out)])


@app.command()
def check(profile: Profile = MAIN_PROFILE, overrides: Set = None, out: Out = None, workers: Workers = None) -> None:
    """Say all that is wrong with the files of a profile.

    Every file of its collections is read; exit code 1 when there is an error.
    """
    config, folder = load(profile, overrides, out)
    from mixcl.data.check.run import check as run

    result = run(config, folder, workers=workers)
    typer.echo(result.to_markdown())
    typer.echo(f"checked: {folder / 'data' / 'check.html'}")
    if result.errors:
        raise typer.Exit(1)
    hint(["prepare", *options(profile, overrides, out)])


@app.command()
def get(
    names: Annotated[
        list[str], typer.Argument(help="Of msd_liver, msd_lung, msd_pancreas, nih_pancreas, kits19, msd_spleen, btcv.")
    ],
    to: Annotated[Path, typer.Option(help="The folder to set as data.root; a collection is a folder below it.")],
) -> None:
    """Download collections, or say how to get them.

    Those that need no account are downloaded, from where it broke off; for the others the steps are told.
    """
    say(f"{', '.join(names)}: into {to}")
    check_folder("--to", to)
    from mixcl.data.download import get as run

    for name in names:
        typer.echo(run(name, to))
    hint(["data", "check", "--profile", "paper", "--set", f"data.root={to}"])
