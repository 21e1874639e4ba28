"""What the commands share: options and their completion, the settings they name, what is said first and last."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mixcl.errors import InputError

if TYPE_CHECKING:  # it takes a third of a second
    from mixcl.config.settings import Experiment
    from mixcl.run import folders

MAIN_PROFILE = "phantom"


def known_profiles() -> list[str]:
    """For the shell's completion of --profile."""
    from mixcl.config.profile import PROFILE_FOLDERS

    return sorted({path.stem for folder in PROFILE_FOLDERS for path in folder.glob("*.yaml")})


def known_runs() -> list[str]:
    """For the shell's completion of --run and --init."""
    return sorted(str(file.parent) for file in Path("results").glob("*/runs/[!.]*/run.json"))


def _profile(text: str) -> Any:
    return typer.Option("--profile", help=text, autocompletion=known_profiles)


Profile = Annotated[str, _profile("Name of a profile in reproduce/profiles, or a YAML file.")]
Given = Annotated[str | None, _profile("Evaluate and compute as this profile says; by default as the run was made.")]
Where = Annotated[str | None, _profile("Whose folder of results; default any.")]
Set = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change one setting, e.g. loss.alpha=0.1.")
]
Out = Annotated[Path | None, typer.Option("--out", help="Folder of results; default results/PROFILE, or the run's.")]
Workers = Annotated[int | None, typer.Option(help="Cases at a time; default one a core.", min=1)]
Restart = Annotated[bool, typer.Option("--restart", help="Drop what this run has done so far and begin again.")]


def load(profile: str, overrides: Iterable[str] | None, out: Path | None) -> tuple[Experiment, Path]:
    """The settings and the folder of results that the shared options name; says so, before anything takes time."""
    from mixcl.config import load_profile

    config = load_profile(profile, overrides or ())
    folder = out or Path("results") / config.profile
    say(f"profile {config.profile}, results in {folder}")
    return config, folder


def open_run(
    name: str, profile: str | None, overrides: Iterable[str] | None, out: Path | None, err: bool = False
) -> tuple[Experiment, Path, Path]:
    """The settings of a run, its folder of results and its own folder; says so, before anything takes time."""
    from mixcl.config import load_profile
    from mixcl.run.folders import find_run, settings_of

    if out is None and profile is not None:
        out = Path("results") / load_profile(profile).profile
    run = find_run(name, out)
    config, folder = settings_of(run, overrides or (), profile), out or run.absolute().parent.parent
    say(f"{run.name} of profile {config.profile}, results in {folder}", err=err)
    return config, folder, run


def start_of(name: str, out: Path) -> Path:
    """Where a fine-tuning starts from: a file of weights, or a job below OUT/runs by its name or path."""
    from mixcl.run.folders import find_run

    path = Path(name)
    file = path.suffix and not path.is_dir() and not (out / "runs" / name).is_dir()
    return path if file else find_run(name, out)


def restarting(asked: bool) -> folders.Restart:
    """How a run begins; a process that torchrun or SLURM starts again with the same words drops nothing more."""
    again = any(os.environ.get(name, "0") != "0" for name in ("TORCHELASTIC_RESTART_COUNT", "SLURM_RESTART_COUNT"))
    return ("changed" if again else "always") if asked else "never"


def has_expected(profile: str) -> bool:
    """Whether a finished run of a profile can be verified: with committed values, or with the paper's."""
    from mixcl.results.verify import EXPECTED

    return profile.startswith("paper") or (EXPECTED / f"{profile}.json").is_file()


def check_folder(option: str, path: Path, there: bool = False) -> None:
    """Refuse what is no folder and, where it has to be ``there``, a folder that is not."""
    if path.exists() and not path.is_dir():
        raise InputError(f"{option} {path}: is a file; give a folder")
    if there and not path.exists():
        raise InputError(f"{option} {path}: no such folder; give a folder of results")


def say(text: str, err: bool = False) -> None:
    """Once, however many processes torchrun has started."""
    if os.environ.get("RANK", "0") == "0":
        typer.echo(text, err=err)
        if stream := sys.stderr if err else sys.stdout:  # none where it was closed, as by >&-
            stream.flush()


def hint(*commands: list[object]) -> None:
    """What people do next, on standard error; nothing with MIXCL_HINTS=no, as in the workflow."""
    if os.environ.get("MIXCL_HINTS") != "no":
        say("\n".join(f"next: {shlex.join(map(str, ['mixcl', *words]))}" for words in commands), err=True)


def options(profile: str, overrides: Iterable[str] | None, out: Path | None) -> list[object]:
    """The shared options as they were given, to be given again."""
    words: list[object] = [] if profile == MAIN_PROFILE else ["--profile", profile]
    words += ["--out", out] if out else []
    return words + [word for item in overrides or () for word in ("--set", item)]
