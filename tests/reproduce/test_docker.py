"""The image, as far as it can be told without building it; ``reproduce/docker/check.sh`` builds and runs it."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path, PurePosixPath

import pytest

ROOT = Path(__file__).resolve().parents[2]
DOCKERFILE = (ROOT / "Dockerfile").read_text(encoding="utf-8")
JOINED = re.sub(r"\\\n\s*", " ", re.sub(r"^#.*\n", "", DOCKERFILE, flags=re.MULTILINE))
INSTRUCTIONS = [tuple(line.split(maxsplit=1)) for line in JOINED.splitlines() if line]


def values(instruction: str) -> list[str]:
    """What follows each ``instruction`` of the Dockerfile, in order."""
    return [rest for name, rest in INSTRUCTIONS if name == instruction]


def commands() -> list[str]:
    """Every single command that the build runs."""
    return [command.strip() for rest in values("RUN") for command in re.split(r"&&|;|\|\|", rest)]


# --- Dockerfile -----------------------------------------------------------------------------------------------------


def test_base_is_pinned_by_digest() -> None:
    (base,) = [value for value in values("ARG") if value.startswith("BASE_IMAGE=")]
    assert re.fullmatch(r"BASE_IMAGE=docker\.io/library/python:3\.11-slim-bookworm@sha256:[0-9a-f]{64}", base)
    assert values("FROM") == ["${BASE_IMAGE}"]
    assert "syntax=" not in DOCKERFILE  # would fetch a builder that nothing pins


def test_every_package_is_checked_against_the_lock() -> None:
    installs = [command for command in commands() if re.search(r"\bpip3? install\b", command)]
    (own,) = [command for command in installs if "--require-hashes" not in command]
    assert own.endswith(" .")
    assert {"--no-index", "--no-deps", "--no-build-isolation"} <= set(own.split())  # it can fetch nothing
    files = [re.findall(r"-r reproduce/lock/(\S+)", command) for command in installs if command != own]
    assert files == [["build.txt"], ["base.txt"], ["torch-${TORCH}.txt"]]
    assert all("--no-deps" in command.split() for command in installs)


def test_both_kinds_of_torch_are_locked_and_cuda_is_the_default() -> None:
    assert "TORCH=cuda" in values("ARG")
    for kind in ("cpu", "cuda"):
        assert (ROOT / f"reproduce/lock/torch-{kind}.txt").is_file()


def test_nothing_else_is_fetched_and_no_compiler_comes_in() -> None:
    for command in commands():
        assert not re.search(r"\b(apt|apt-get|apk|curl|wget|git|conda|gcc|g\+\+|build-essential)\b", command), command
    assert not values("ADD")


def test_what_pip_is_told_is_a_secret_of_the_build() -> None:
    """An ARG, and a password in it, stays in the image's history."""
    assert {value.partition("=")[0] for value in values("ARG")} == {"BASE_IMAGE", "TORCH", "COMMIT"}
    fetching = [rest for rest in values("RUN") if "--require-hashes" in rest]
    assert len(fetching) == 2
    assert all(rest.startswith("--mount=type=secret,id=pip,target=/etc/pip.conf ") for rest in fetching)
    check = (ROOT / "reproduce/docker/check.sh").read_text(encoding="utf-8")
    assert '--secret "id=pip,src=$work/pip.conf"' in check
    assert not re.search(r"--build-arg \S*PIP_", check)


def test_a_run_cannot_be_given_other_notebooks() -> None:
    assert not [command for command in commands() if re.search(r"\b(chmod|chown)\b.*\bnotebooks\b", command)]


def test_the_image_has_no_test_tools() -> None:
    locked = (ROOT / "reproduce/lock/base.txt").read_text(encoding="utf-8")
    for tool in ("pytest", "hypothesis", "ruff", "mypy", "scikit-image"):
        assert not re.search(rf"^{tool}==", locked, re.MULTILINE)
    assert "dev.txt" not in " ".join(commands())


@pytest.mark.parametrize("name", ["Dockerfile", "README.md", "reproduce/README.md"])
def test_jupyterlab_is_published_to_this_machine_alone(name: str) -> None:
    published = re.findall(r"-p (\S+)", (ROOT / name).read_text(encoding="utf-8"))
    assert all(port == "127.0.0.1:8888:8888" for port in published)
    assert published or name == "README.md"


def test_user_is_not_root() -> None:
    names = [name for name, _ in INSTRUCTIONS]
    assert values("USER") == ["mixcl"]
    assert "RUN" not in names[names.index("USER") :]
    assert any(command.startswith("useradd ") and command.endswith(" mixcl") for command in commands())


def test_results_are_a_volume_made_before_it_is_declared() -> None:
    assert values("VOLUME") == ["/results"]
    before = JOINED[: JOINED.index("VOLUME")]  # what is changed in a volume afterwards is lost
    assert re.search(r"mkdir .*/results", before)
    assert re.search(r"chmod 1777 /results", before)
    assert "ln -s /results results" in before


def test_environment_tells_that_this_is_a_container_and_which_commit() -> None:
    (environment,) = [value for value in values("ENV") if "MIXCL_CONTAINER" in value]
    assert {"MIXCL_CONTAINER=1", "MIXCL_COMMIT=${COMMIT}"} <= set(environment.split())
    assert "COMMIT=unknown" in values("ARG")
    assert INSTRUCTIONS.index(("ARG", "COMMIT=unknown")) > max(
        index for index, (name, _) in enumerate(INSTRUCTIONS) if name == "RUN"
    ), "a new commit must not install everything again"


def test_entry_point_is_the_script() -> None:
    (entry,) = values("ENTRYPOINT")
    (folder,) = values("WORKDIR")
    assert entry == f'["bash", "{folder}/reproduce/docker/entrypoint.sh"]'
    assert not values("CMD")


# --- .dockerignore --------------------------------------------------------------------------------------------------


def goes_in(name: str, rules: str | None = None) -> bool:
    """Does this path go into the build?  As Docker decides: the last pattern that matches it or a parent of it."""
    text = (ROOT / ".dockerignore").read_text(encoding="utf-8") if rules is None else rules
    path, kept = PurePosixPath(name), True
    for rule in text.splitlines():
        if not rule.strip() or rule.startswith("#"):
            continue
        pattern = re.escape(rule.removeprefix("!").strip("/"))
        pattern = pattern.replace(r"\*\*/", "(?:.*/)?").replace(r"\*", "[^/]*").replace(r"\?", "[^/]")
        if any(re.fullmatch(pattern, str(part)) for part in (path, *path.parents[:-1])):
            kept = rule.startswith("!")
    return kept


def test_the_reading_of_dockerignore() -> None:
    rules = "*\n!a\n**/*.npy\n"
    assert goes_in("a/b/c.py", rules)
    assert not goes_in("b/c.py", rules)
    assert not goes_in("a/b/c.npy", rules)


@pytest.mark.parametrize(
    "name",
    [
        ".git/config", ".venv/bin/python", ".env", "data/ct/case.nii.gz", "results/phantom/RUN.md", "scratch/notes.md",
        "mixcl/__pycache__/config.cpython-311.pyc", "notebooks/.ipynb_checkpoints/10.ipynb", "mixcl/case.nii.gz",
        "notebooks/weights.safetensors", "reproduce/store/image.npy", "tests/model.pt", ".mypy_cache/x.json",
    ],
)  # fmt: skip
def test_image_leaves_out(name: str) -> None:
    assert not goes_in(name)


def test_image_holds_every_file_under_version_control() -> None:
    try:
        run = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True, text=True)
        names = [name for name in run.stdout.split("\0") if name]
    except (OSError, subprocess.CalledProcessError):
        names = []
    needed = [
        "README.md", "pyproject.toml", "LICENSE", "mixcl/config.py", "mixcl/data/store.py", "reproduce/run_all.sh",
        "reproduce/bits.sh", "reproduce/Snakefile", "reproduce/lock/base.txt", "reproduce/profiles/phantom.yaml",
        "reproduce/docker/entrypoint.sh", "notebooks/10_pretrain.ipynb", "tests/conftest.py",
    ]  # fmt: skip
    missing = [name for name in [*needed, *names] if not goes_in(name)]
    assert not missing, f"name them in .dockerignore: {missing}"


# --- entrypoint.sh --------------------------------------------------------------------------------------------------

SPEAK = '#!/bin/bash\nprintf "%s" "${0##*/}"; printf " [%s]" "$@"; echo " $BITS"\n'


@pytest.fixture
def container(tmp_path: Path) -> Path:
    """A copy of the repository's skeleton in which run_all.sh, mixcl and jupyter only say what they were given."""
    docker, programs = tmp_path / "reproduce" / "docker", tmp_path / "bin"
    docker.mkdir(parents=True)
    programs.mkdir()
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "notebooks" / "00_overview.ipynb").touch()
    shutil.copy(ROOT / "reproduce/docker/entrypoint.sh", docker)
    (tmp_path / "reproduce" / "bits.sh").write_text("export BITS=pinned\n")
    for file in (tmp_path / "reproduce" / "run_all.sh", programs / "mixcl", programs / "jupyter"):
        file.write_text(SPEAK)
        file.chmod(0o755)
    (programs / "python").write_text(f'#!/bin/bash\nexec "{sys.executable}" "$@"\n')  # a link would lose its packages
    (programs / "python").chmod(0o755)
    return tmp_path


def enter(container: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    paths = {"PATH": f"{container / 'bin'}:/usr/bin:/bin", "PYTHONPATH": str(ROOT), "HOME": str(container / "home")}
    environment, script = {**os.environ, **paths}, container / "reproduce" / "docker" / "entrypoint.sh"
    return subprocess.run(
        ["bash", str(script), *arguments], env=environment, cwd=container, capture_output=True, text=True, timeout=60
    )


def said(container: Path, *arguments: str) -> list[str]:
    run = enter(container, *arguments)
    assert run.returncode == 0, run.stderr
    return run.stdout.splitlines()


def test_without_arguments_the_main_job_and_its_verification(container: Path) -> None:
    assert said(container) == [
        "run_all.sh [] pinned",
        f"mixcl [verify] [--profile] [phantom] [--out] [{container}/results/phantom] pinned",
    ]


def test_options_go_to_the_main_job_and_the_profile_to_the_verification(container: Path) -> None:
    assert said(container, "--cores", "3", "--profile", "smoke", "--set", "loss.alpha=0.1 ") == [
        "run_all.sh [--cores] [3] [--profile] [smoke] [--set] [loss.alpha=0.1 ] pinned",
        f"mixcl [verify] [--profile] [smoke] [--out] [{container}/results/smoke] [--set] [loss.alpha=0.1 ] pinned",
    ]
    _, second = said(container, "--out", "/results/a b")
    assert second == "mixcl [verify] [--profile] [phantom] [--out] [/results/a b] pinned"


def test_collections_are_looked_for_in_data(container: Path) -> None:
    first, second = said(container, "--profile", "paper")
    assert first.startswith("run_all.sh [--set] [data.root=/data] ")
    assert first.endswith(" [--profile] [paper] pinned")
    assert "[--set] [data.root=/data]" in second
    elsewhere = said(container, "--profile", "paper", "--set", "data.root=/scans")
    assert not any("/data]" in line for line in elsewhere)


def test_workers_only_where_there_is_shared_memory(container: Path) -> None:
    shared = os.statvfs("/dev/shm")
    enough = shared.f_blocks * shared.f_frsize >= 1e9
    assert ("[run.workers=0]" in said(container, "--profile", "paper")[0]) is not enough
    own = said(container, "--profile", "paper", "--set", "run.workers=3")[0]
    assert own.rindex("run.workers=3") > own.rfind("run.workers=0")  # the last one counts


@pytest.mark.parametrize(
    "arguments", [("--dry-run",), ("--help",), ("-h",), ("--only", "prepare"), ("--profile", "fair")]
)
def test_nothing_is_verified_where_not_everything_is_made_or_expected(
    container: Path, arguments: tuple[str, ...]
) -> None:
    (line,) = said(container, *arguments)
    assert line == f"run_all.sh {' '.join(f'[{a}]' for a in arguments)} pinned"


def test_wrong_options_are_left_to_the_main_job_to_explain(container: Path) -> None:
    for wrong in (["--profile", "no-such"], ["--profile"], ["--set", "no.such=1"]):
        assert said(container, *wrong) == [f"run_all.sh {' '.join(f'[{word}]' for word in wrong)} pinned"]


def test_lab_is_open_to_other_machines_and_keeps_its_token(container: Path) -> None:
    (line,) = said(container, "lab", "--port=9999")
    assert line.startswith("jupyter [lab] ")
    assert "[--ip=0.0.0.0]" in line
    assert line.endswith("[--port=9999] pinned")
    assert not re.search("token|password|allow_root|disable_check", line)


def test_lab_works_on_copies_and_keeps_what_was_saved(container: Path) -> None:
    home = container / "home"
    for name in ("a", "b"):
        (container / "notebooks" / f"{name}.ipynb").write_text("given")
    said(container, "lab")
    (home / "notebooks" / "a.ipynb").write_text("saved")
    (line,) = said(container, "lab")
    assert f"[--ServerApp.root_dir={home}]" in line
    assert [(home / "notebooks" / f"{name}.ipynb").read_text() for name in ("a", "b")] == ["saved", "given"]
    assert (home / "figures").readlink() == container / "figures"


def test_anything_else_is_run_as_it_is(container: Path) -> None:
    assert said(container, "mixcl", "export", "--to", "a b") == ["mixcl [export] [--to] [a b] pinned"]
    assert said(container, "bash", "-c", "echo $BITS") == ["pinned"]
    assert enter(container, "bash", "-c", "exit 7").returncode == 7


def test_exit_statuses_are_kept(container: Path) -> None:
    main, mixcl = container / "reproduce" / "run_all.sh", container / "bin" / "mixcl"
    mixcl.write_text("#!/bin/bash\necho verify\nexit 4\n")
    run = enter(container)
    assert (run.returncode, run.stdout.splitlines()[-1]) == (4, "verify")
    main.write_text("echo main\nexit 3\n")
    run = enter(container)
    assert (run.returncode, run.stdout.splitlines()) == (3, ["main"])


def test_a_stopped_container_stops_the_main_job(container: Path) -> None:
    (container / "reproduce" / "run_all.sh").write_text(
        'trap "echo stopped; exit 5" TERM\ntouch started\nfor ((i = 0; i < 300; i++)); do sleep 0.1; done\n'
    )
    script = container / "reproduce" / "docker" / "entrypoint.sh"
    environment = {**os.environ, "PATH": f"{container / 'bin'}:/usr/bin:/bin", "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        ["bash", str(script)], env=environment, cwd=container, stdout=subprocess.PIPE, text=True
    ) as process:
        for _ in range(600):
            if (container / "started").exists():
                break
            time.sleep(0.1)
        process.send_signal(signal.SIGTERM)
        output, _ = process.communicate(timeout=20)
    assert (process.returncode, output) == (5, "stopped\n")
