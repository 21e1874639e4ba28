"""The workflow from a profile to its tables, figures and page: what run_all.sh starts in its environment.

What a user has typed goes to the Snakefile in a file, OUT/commands/settings.json, so that no character of it means
anything to Snakemake's patterns, to YAML or to a shell.  What Snakemake would take from the user's environment is kept
from it.  Where it ends with an error, the reason is printed in one line.
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import dry_run
from progress import Progress

from mixcl.cli.shared import has_expected
from mixcl.config import load_profile
from mixcl.config.settings import DataConfig, Experiment
from mixcl.data.registry import collections, folder
from mixcl.errors import InputError
from mixcl.files import read_json, write_json, writing
from mixcl.lock import locked
from mixcl.run import gpus, jobs, signals

HERE = Path(__file__).resolve().parent
WAIT = 30.0  # seconds for another run to let go of the folder; a killed one does within that
LAST_WORDS = 5.0  # seconds to show what was said last; a job that outlives the engine may hold its end of the pipe
ON_A_CLUSTER = re.compile(r"[\w./@%+=:,-]+")  # what a folder may hold that SLURM's own command line names
MOST_GPUS = 4096  # of another machine, for which a plan is made


def main() -> int:
    """What run_all.sh exits with: 0, 1 when something could not be made, 2 for wrong input, 130 when stopped."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("profile", "out", "cores", "gpus", "only", "slurm", "dry"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("settings", nargs="*")
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    try:
        return _run(parser.parse_args())
    except InputError as error:
        print(f"run_all.sh: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("mixcl: stopped; the same command goes on where it was", file=sys.stderr)
        return 130


def _run(options: argparse.Namespace) -> int:
    profile, settings = options.profile, list(options.settings)
    if profile.endswith((".yaml", ".yml")) or os.sep in profile:  # a path, and the jobs work in other folders
        profile = os.path.abspath(os.path.expanduser(profile))
    config = load_profile(profile, settings)
    if options.only != "prepare" and not jobs.cells(config):
        tasks = ", ".join(config.data.finetune) or "nothing"
        raise InputError(
            f"no job: data.finetune is {tasks}, and grid.percents gives no share of labels for it; add one"
        )
    out = _folder(options.out or str(HERE.parent / "results" / config.profile), options.slurm)
    devices = _devices(options)
    with _alone(out) as lock:
        print(f"mixcl: profile {config.profile}, results in {out}", flush=True)
        settings += _absolute(config.data, out)
        handed = {"profile": profile, "settings": settings, "out": str(out), "gpu": int(bool(devices))}
        handed["scans"] = _listing(config.data, out)
        write_json(out / "commands" / "settings.json", handed)
        if options.dry:
            return _plan(config, out, options, len(devices))
        return _make(config, out, options, devices, lock)


def _folder(name: str, slurm: str) -> Path:
    """The folder of results, where its name can be written into a file and, on a cluster, into SLURM's command line."""
    path = os.path.realpath(os.path.expanduser(name))
    if not path.isprintable():
        raise InputError(f"--out {path!a}: holds a control character or is not UTF-8; choose another folder")
    if slurm and not ON_A_CLUSTER.fullmatch(path):
        raise InputError(
            f"--out {path}: SLURM's commands take letters, digits and ./@%+=:,-_ alone; choose another folder"
        )
    return Path(path)


def _absolute(data: DataConfig, out: Path) -> list[str]:
    """The folders that the settings name from where the user stands, by their paths from the root."""
    places = {"data.root": data.raw_dir(out), "data.store": data.store_dir(out)}
    moved = {key: str(place.absolute()) for key, place in places.items() if not place.is_absolute()}
    return [f"{key}={json.dumps(place, ensure_ascii=False)}" for key, place in moved.items()]


def _listing(data: DataConfig, out: Path) -> str:
    """A name for scans as they lie in their folders, by names, sizes and dates; of phantoms settings tell."""
    listed = hashlib.sha256()
    for collection in collections(data).values() if data.source == "files" else ():
        base = folder(collection, data.raw_dir(out))
        for path in sorted(base.rglob("*")):
            with suppress(OSError):
                status = path.stat()
                listed.update(
                    f"{path.relative_to(base)}\0{status.st_size}\0{status.st_mtime_ns}\0".encode(errors="replace")
                )
    return listed.hexdigest()


@contextmanager
def _alone(out: Path) -> Iterator[int]:
    """Hold the folder of results for one run, with the number of the file that a child must inherit to hold it too."""
    with writing(out):
        out.mkdir(parents=True, exist_ok=True)
        file = (out / ".lock").open("w", encoding="utf-8")
    with file:
        end = time.monotonic() + WAIT
        while locked(file.fileno()) is False:  # None: the file system knows no locks
            if time.monotonic() > end:
                raise InputError(f"{out}: another run is at work there; wait for it or choose another --out", "machine")
            time.sleep(0.2)
        yield file.fileno()


def _devices(options: argparse.Namespace) -> list[str]:
    """The devices to hand out, one a job; on a cluster the scheduler hands them out, and their number alone counts."""
    if options.slurm:
        return ["scheduled"] * int(options.gpus or 0)
    names = gpus.visible(gpus.listed(), os.environ.get("CUDA_VISIBLE_DEVICES"))
    wanted = int(options.gpus or len(names))
    if len(names) < wanted <= MOST_GPUS and options.dry:
        return [*names, *map(str, range(len(names), wanted))]  # a plan for another machine
    if wanted > len(names):
        raise InputError(
            f"--gpus {wanted}: {len(names)} can be seen here (nvidia-smi --list-gpus, CUDA_VISIBLE_DEVICES)"
        )
    return names[:wanted]


# --- the engine -----------------------------------------------------------------------------------------------------


def _engine(out: Path, *words: str, elsewhere: bool = False) -> list[str]:
    """Snakemake's command line; its profiles are ours or none.

    A killed run_all.sh takes it along.  Here at once, and its jobs end with it and save; of jobs ``elsewhere``, which a
    scheduler has, it waits for the end, and until then the folder is theirs.
    """
    tied = ["setpriv", "--pdeathsig", "TERM" if elsewhere else "KILL"] if shutil.which("setpriv") else []
    snakemake = [*tied, sys.executable, "-m", "snakemake", "--snakefile", str(HERE / "Snakefile")]
    fixed = ["--nolock", "--nocolor", "--rerun-incomplete", "--keep-going", "--profile", "none"]
    return [*snakemake, "--directory", str(out), *fixed, *words]


def _environment(out: Path, **more: str) -> dict[str, str]:
    """The environment of the engine and its jobs: the user's without what would change how they work.

    Caches can be written, Snakemake and matplotlib have no settings but ours, a job of SLURM's gets the environment of
    whoever sends it, and no module is imported from where the user stands.
    """
    users = ("SNAKEMAKE_", "MATPLOTLIBRC", "SBATCH_EXPORT", "SLURM_EXPORT_ENV")
    kept = {key: value for key, value in os.environ.items() if not key.startswith(users)}
    caches = {"XDG_CACHE_HOME": str(out / ".cache"), "MPLCONFIGDIR": str(out / ".cache" / "matplotlib")}
    return kept | caches | {"PYTHONSAFEPATH": "1", "MIXCL_HINTS": "no"} | more


def _plan(config: Experiment, out: Path, options: argparse.Namespace, devices: int) -> int:
    """Print what would run."""
    words = _engine(out, "--workflow-profile", "none", "--cores", "1", "--summary", "--", options.only)
    done = subprocess.run(words, capture_output=True, text=True, env=_environment(out))
    if done.returncode:
        print(f"run_all.sh: the workflow has no plan: {reason(done.stderr, done.returncode)}", file=sys.stderr)
        return 1
    dry_run.show(done.stdout, config, out, int(options.cores), devices)
    return 0


def _make(config: Experiment, out: Path, options: argparse.Namespace, devices: Sequence[str], lock: int) -> int:
    """Run the engine.  What its jobs say is shown with how far all is before it; what itself says goes to a file.

    Why it ended with an error comes to the screen as well.
    """
    handed = {gpus.NAMES: "" if options.slurm else ",".join(devices)}
    if options.slurm:
        more = ["--workflow-profile", options.slurm, "--jobs", options.cores]
    else:
        more = ["--workflow-profile", "none", "--cores", options.cores]
        more += ["--resources", f"gpu={len(devices)}"] if devices else []
    if options.gpus == "0":
        handed["CUDA_VISIBLE_DEVICES"] = ""  # stays on the processor
    environment = _environment(out, **handed)
    if not devices:
        subprocess.run([sys.executable, "-m", "mixcl.run.determinism"], env=environment, check=False)
    _drop_stale(config, out)
    log = out / "workflow.log"
    with writing(log), log.open("ab") as file:
        begin = file.tell()
        words = _engine(out, *more, "--", options.only, elsewhere=bool(options.slurm))
        if text := dry_run.without_gpu(config, int(options.cores)) if not devices else "":
            print(text, flush=True)
        progress = Progress(config, out, _slots(config, options, devices), bool(devices))
        engine = subprocess.Popen(
            words, stdout=subprocess.PIPE, stderr=file, text=True, errors="replace", pass_fds=(lock,), env=environment
        )
        relay = threading.Thread(target=_relay, args=(engine.stdout, progress), daemon=True)
        relay.start()
        try:
            status = _wait(engine, progress, bool(options.slurm))
        except SystemExit:  # SIGTERM, of `docker stop` for one
            engine.send_signal(signal.SIGINT if options.slurm else signal.SIGKILL)  # on a cluster it calls its jobs off
            relay.join(signals.GRACE)  # its jobs save their step
            print("mixcl: stopped; the same command goes on where it was", file=sys.stderr)
            raise
        relay.join(LAST_WORDS)
    if status:
        text = log.read_bytes()[begin:].decode(errors="replace") if log.is_file() else f"{out} was taken away meanwhile"
        print(
            f"mixcl: not everything could be made: {reason(text, status)} (the engine's log is {log})", file=sys.stderr
        )
        print("mixcl: mend it and run the same command again: what is finished is kept", file=sys.stderr)
        return 1
    _tell(config, out, options)
    return 0


def _drop_stale(config: Experiment, out: Path) -> None:
    """Take away the marks of jobs that these settings would make otherwise, whoever ran them, so that they are made."""
    from mixcl.results.verify.jobs import stale  # here, because it takes a second

    report = out / "data" / "report.json"
    with suppress(OSError, ValueError, KeyError):  # not prepared yet
        if read_json(report)["faults"]:
            report.unlink()
    with suppress(InputError):
        for job in stale(config, out):
            for mark in ("done", "cases.csv"):
                (out / "runs" / job / mark).unlink(missing_ok=True)


def _slots(config: Experiment, options: argparse.Namespace, devices: Sequence[str]) -> int:
    """How many trainings run at a time."""
    if options.slurm:
        return int(options.cores)
    at_a_time = max(int(options.cores) // config.run.threads, 1)
    return min(at_a_time, len(devices)) if devices else at_a_time


def _relay(lines: Iterable[str], progress: Progress) -> None:
    """Show what the jobs say, a line at a time, with how far all is before it."""
    for line in lines:
        if line.strip():
            with suppress(OSError):  # nobody reads on; the jobs must not wait for that
                print(progress.mark(line.rstrip()), flush=True)


def _wait(engine: subprocess.Popen[str], progress: Progress, elsewhere: bool) -> int:
    """The engine's status; of jobs that run ``elsewhere`` and say nothing here, it is shown that they have ended.

    Ctrl-C reaches the engine as well, and it ends its jobs first.
    """
    try:
        while elsewhere and engine.poll() is None:
            time.sleep(1)
            for rule in progress.ended_rules():
                print(f"{progress}{rule}: done", flush=True)
        return engine.wait()
    except KeyboardInterrupt:
        engine.wait()
        raise


def _tell(config: Experiment, out: Path, options: argparse.Namespace) -> None:
    """What came out, and where it is."""
    if options.only in ("all", "figures", "table1"):
        from mixcl.results.findings import headline  # here, because it takes two seconds

        print("\n".join(headline(out, config)))
    if options.only in ("all", "figures"):
        sets = [word for item in options.settings for word in ("--set", item)]
        verify = shlex.join(["mixcl", "verify", "--profile", options.profile, "--out", str(out), *sets])
        known = has_expected(config.profile)
        print(f"mixcl: the page is {out}/site/index.html" + (f"; compare the numbers with: {verify}" if known else ""))
    elif options.only.startswith("table"):
        print(f"mixcl: tables in {out}/tables")
    else:
        print(f"mixcl: done, in {out}")
    if activate := os.environ.get("MIXCL_ACTIVATE"):  # by setup.sh, where the user's shell has another environment
        print(f"mixcl: to have mixcl and jupyter in your shell: {activate}")


def reason(text: str, status: int) -> str:
    """Why the engine ended with an error, in one line, from its standard error and its status (a signal's is negative).

    >>> reason("Building DAG of jobs...\\nMissingInputException in rule a:\\nMissing input files:\\n  b\\n", 1)
    'MissingInputException in rule a: Missing input files: b'
    """
    lines = [line.rstrip() for line in text.splitlines() if line.strip()]
    failed = list(dict.fromkeys(re.findall(r"^Error in rule (\S+):$", text, re.MULTILINE)))
    if failed:
        ends = {int(number) for number in re.findall(r"non-zero exit status (\d+)", text) if int(number) > 2}
        ends |= {128 + int(number) for number in re.findall(r"died with <Signals\.\w+: (\d+)>", text)}
        more = re.findall(r"^ +message: (?!None)(.+)$", text, re.MULTILINE)
        killed = {137: ", killed, perhaps for want of memory"}
        more += [f"exit status {end}{killed.get(end, '')}" for end in sorted(ends)]
        where = f" ({'; '.join(dict.fromkeys(more))})" if more else ""
        return f"{', '.join(failed)} failed{where}; the lines above say why"
    if status < 0:
        return f"the engine was ended by a signal ({signal.strsignal(-status)})"
    heads = [at for at, line in enumerate(lines) if re.match(r"[\w.]*(Error|Exception)\b", line)]
    last = lines[heads[0] :] if heads else lines[-1:]
    words = " ".join(itertools.takewhile(lambda line: not line.startswith("  File"), last)).split()
    return " ".join(words)[:500] or f"the engine ended with status {status} and said nothing"


if __name__ == "__main__":
    sys.exit(main())
