"""What the repository ships with: metadata, lock, environment files; nothing that belongs to one machine."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib import import_module, reload
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from mixcl.errors import InputError

ROOT = Path(__file__).resolve().parents[2]
LOCK = ROOT / "reproduce" / "lock"
PIN = re.compile(r"^([A-Za-z0-9][\w.-]*)==([^\s;\\]+)", re.MULTILINE)
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
PROJECT = PYPROJECT["project"]

TOP_LEVEL = (
    "mixcl",
    "notebooks",
    "reproduce",
    "figures",
    "tests",
    "environment.yml",
    "README.md",
    "pyproject.toml",
    "LICENSE",
    "CITATION.cff",
    "Dockerfile",
    ".ci/run",
    ".github/CONTRIBUTING.md",
    ".github/SECURITY.md",
    ".github/workflows/ci.yml",
    ".pre-commit-config.yaml",
    "reproduce/README.md",
    "reproduce/READINGS.md",
    "reproduce/bench/README.md",
    "reproduce/run_all.sh",
    "reproduce/test.sh",
    "reproduce/setup.sh",
    "reproduce/profiles/smoke.yaml",
    "reproduce/profiles/phantom.yaml",
    "reproduce/profiles/paper.yaml",
)


def pins(*names: str) -> dict[str, str]:
    """Name -> version of everything pinned in the lock files, with ``-r`` lines followed."""
    found: dict[str, str] = {}
    for name in names:
        text = (LOCK / name).read_text()
        found |= {canonicalize_name(package): version for package, version in PIN.findall(text)}
        found |= pins(*re.findall(r"^-r (\S+)$", text, flags=re.MULTILINE))
    return found


def requirements(*extras: str) -> list[Requirement]:
    """What pyproject.toml asks for, with the named extras and those that they name."""
    optional = PROJECT["optional-dependencies"]
    asked = [Requirement(text) for text in PROJECT["dependencies"] + [r for e in extras for r in optional[e]]]
    own = [requirement for requirement in asked if requirement.name == PROJECT["name"]]
    more = requirements(*(extra for requirement in own for extra in requirement.extras)) if own else []
    return [requirement for requirement in asked if requirement not in own] + more


def tracked_files() -> list[Path]:
    """Files under version control; the test is skipped in a copy without its history."""
    try:
        listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True, text=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("not a git checkout")
    return [ROOT / name for name in listed.stdout.split("\0") if name and (ROOT / name).is_file()]


def imported_by(folder: Path) -> Iterator[tuple[Path, str]]:
    """(file, top-level module) for every import statement in the Python files under ``folder``."""
    for file in sorted(folder.rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Import):
                yield from ((file, alias.name.partition(".")[0]) for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
                yield file, node.module.partition(".")[0]


@pytest.mark.parametrize("name", TOP_LEVEL)
def test_layout_is_complete(name: str) -> None:
    assert (ROOT / name).exists(), f"{name} is missing"


@pytest.mark.parametrize(
    "name", [".ci/run", "reproduce/run_all.sh", "reproduce/test.sh", "reproduce/setup.sh", "reproduce/lock/audit.sh"]
)
def test_scripts_stop_at_the_first_failure(name: str) -> None:
    text = (ROOT / name).read_text()
    assert text.startswith("#!/usr/bin/env bash\n")
    assert "set -euo pipefail" in text
    subprocess.run(["bash", "-n", str(ROOT / name)], check=True)


def test_citation_names_the_software_and_the_paper() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert {"cff-version", "message", "title", "authors"} <= citation.keys()
    assert citation["cff-version"] == "1.2.0"
    assert citation["version"] == PROJECT["version"]
    assert citation["license"] == PROJECT["license"] == "Apache-2.0"
    assert citation["authors"] == [{"name": "The mixcl authors"}] == PROJECT["authors"]
    paper = citation["preferred-citation"]
    assert {"type", "title", "authors"} <= paper.keys()
    names = [f"{author['given-names']} {author['family-names']}" for author in paper["authors"]]
    assert names == ["Jun Li", "Quan Quan", "S. Kevin Zhou"]
    assert paper["title"].startswith("MixCL: Pixel label matters to contrastive learning")
    assert paper["year"] == 2022
    assert paper["identifiers"][0]["value"] == "arXiv:2203.02114"


def test_licence_is_the_whole_apache_2_text() -> None:
    text = (ROOT / "LICENSE").read_text()
    assert "Apache License" in text
    assert "Version 2.0, January 2004" in text
    for section in range(1, 10):
        assert re.search(rf"^\s+{section}\. [A-Z]", text, flags=re.MULTILINE), f"section {section} is missing"
    assert "END OF TERMS AND CONDITIONS" in text


def test_version_of_the_package_is_that_of_the_metadata() -> None:
    text = (ROOT / "mixcl" / "__init__.py").read_text()
    assert re.findall(r'^__version__ = "(.+)"$', text, flags=re.MULTILINE) == [PROJECT["version"]]


def test_every_dependency_says_what_it_is_for() -> None:
    text = (ROOT / "pyproject.toml").read_text()
    for requirement in requirements("workflow", "dev", "bench", "browser", "fuzz"):
        line = rf'"{re.escape(requirement.name)}(?:[<>=][^"]*)?"[^#\n]*# \w'
        assert re.search(line, text), f"{requirement.name}: what is it for?"


def test_checks_before_a_commit_are_those_of_the_lock() -> None:
    (repository,) = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    assert {hook["id"] for hook in repository["hooks"]} == {"ruff-check", "ruff-format", "mypy", "subject"}
    pinned = [text for hook in repository["hooks"] for text in hook.get("additional_dependencies", [])]
    assert set(pinned) == {f"ruff=={pins('dev.txt')['ruff']}"}


@pytest.mark.parametrize(
    ("message", "fits"),
    [
        ("core: a loss of ours\n\nIts command.", True),
        ("tests: " + 63 * "x", True),
        ("fix: it", False),
        ("a loss of ours", False),
        ("core: " + 64 * "x", False),
    ],
)
def test_a_subject_has_its_prefix_and_is_short(message: str, fits: bool) -> None:
    (repository,) = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    (pattern,) = (hook["entry"] for hook in repository["hooks"] if hook["id"] == "subject")
    wrong = re.search(pattern.encode(), message.encode(), re.MULTILINE | re.DOTALL)  # as pygrep looks
    assert (wrong is None) == fits


def test_the_code_host_runs_what_a_change_must_pass_and_builds_the_image() -> None:
    jobs = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text())["jobs"]
    commands = [step["run"] for job in jobs.values() for step in job["steps"] if "run" in step]
    assert "bash .ci/run" in commands
    assert any(command.startswith("docker build ") for command in commands)
    for check in ("ruff check", "ruff format --check", "mypy", "reproduce/test.sh"):
        assert check in (ROOT / ".ci/run").read_text()


@pytest.mark.parametrize("name", ["base.txt", "dev.txt", "build.txt", "torch-cpu.txt", "torch-cuda.txt"])
def test_every_locked_package_has_hashes(name: str) -> None:
    lines = [line for line in (LOCK / name).read_text().splitlines() if line and not line.lstrip().startswith("#")]
    blocks = re.split(r"\n(?=\S)", "\n".join(lines))
    assert len(blocks) == len(pins(name)) > 0
    for block in blocks:
        assert re.search(r"--hash=sha256:[0-9a-f]{64}", block), f"no hash for {block.splitlines()[0]}"


def test_lock_separates_torch_from_the_rest() -> None:
    base, cpu, cuda = {**pins("base.txt"), **pins("dev.txt")}, pins("torch-cpu.txt"), pins("torch-cuda.txt")
    assert not pins("base.txt").keys() & pins("dev.txt").keys()
    assert cpu.keys() == {"torch"}
    assert cpu["torch"] == f"{cuda['torch']}+cpu"
    assert not base.keys() & cuda.keys()
    assert not [name for name in base if name.startswith(("torch", "triton", "nvidia-", "cuda-"))]
    assert pins("build.txt").items() <= base.items()
    assert pins("cpu.txt") == base | cpu
    assert pins("cuda.txt") == base | cuda


@pytest.mark.parametrize("kind", ["cpu.txt", "cuda.txt"])
def test_lock_satisfies_the_dependencies(kind: str) -> None:
    locked = pins(kind)
    for requirement in [
        *requirements("workflow", "tensorboard", "dev"),
        *map(Requirement, PYPROJECT["build-system"]["requires"]),
    ]:
        name = canonicalize_name(requirement.name)
        assert name in locked, f"{requirement} is not in the lock; run reproduce/lock/lock.sh"
        assert requirement.specifier.contains(locked[name]), f"{requirement} excludes the locked {locked[name]}"
    assert "editables" in locked  # an editable install without build isolation needs it


def test_what_a_run_needs_is_locked_without_the_test_tools() -> None:
    locked = pins("base.txt", "torch-cuda.txt")
    assert {canonicalize_name(requirement.name) for requirement in requirements("workflow")} <= locked.keys()
    tools = {canonicalize_name(text.partition(">")[0]) for text in PROJECT["optional-dependencies"]["dev"]}
    assert tools - {"packaging"} <= pins("dev.txt").keys()  # packaging is needed by others, too


def test_the_bill_of_materials_is_the_lock() -> None:
    bill = json.loads((LOCK / "sbom.cdx.json").read_text())
    assert bill["bomFormat"] == "CycloneDX"
    listed = {canonicalize_name(part["name"]): part for part in bill["components"]}
    assert {name: part["version"] for name, part in listed.items()} == pins("cuda.txt")
    text = "".join((LOCK / name).read_text() for name in ("base.txt", "dev.txt", "torch-cuda.txt"))
    hashes = {digest["content"] for part in listed.values() for digest in part["hashes"]}
    assert hashes == set(re.findall(r"--hash=sha256:([0-9a-f]{64})", text))
    assert all(part["purl"].startswith("pkg:pypi/") for part in listed.values())


def test_known_weaknesses_are_asked_for_or_it_is_said_why_not(tmp_path: Path) -> None:
    jobs = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text())["jobs"]
    assert "bash reproduce/lock/audit.sh" in [step.get("run") for job in jobs.values() for step in job["steps"]]
    place = {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path)}
    run = ["bash", str(LOCK / "audit.sh")]
    done = subprocess.run(run, env=place, capture_output=True, text=True, check=True)
    assert done.stdout == "audit: skipped: pip-audit is not installed\n"


def test_security_says_what_is_trusted() -> None:
    text = (ROOT / ".github/SECURITY.md").read_text()
    for words in ("## What is trusted", "## What is not trusted", "Profiles", "Scans", "Weights", "archives"):
        assert words in text


def test_dependencies_admit_the_other_supported_machine() -> None:
    """Python 3.12 with torch 2.11, as on GPU machines whose torch comes with them."""
    torch = next(requirement for requirement in requirements() if requirement.name == "torch")
    assert torch.specifier.contains("2.11.0")
    assert Requirement(f"python{PROJECT['requires-python']}").specifier.contains("3.12.0")


def test_environment_yml_agrees_with_the_lock() -> None:
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    assert environment["name"] == PROJECT["name"]
    plain = [entry for entry in environment["dependencies"] if isinstance(entry, str)]
    python = next(entry for entry in plain if entry.startswith("python="))
    assert Requirement(f"python{PROJECT['requires-python']}").specifier.contains(f"{python.partition('=')[2]}.0")
    assert {entry.partition("=")[0] for entry in plain} == {"python", "pip"}  # whatever else would be a second pin
    (nested,) = [entry["pip"] for entry in environment["dependencies"] if isinstance(entry, dict)]
    locked = pins("cuda.txt")
    for line in nested:
        if line.startswith("-r "):
            assert pins(Path(line.removeprefix("-r ")).relative_to("reproduce/lock").name) == locked
        else:
            requirement = Requirement(line)
            assert Version(locked[canonicalize_name(requirement.name)]) in requirement.specifier


@pytest.mark.parametrize(
    ("folder", "extras"),
    [
        ("mixcl", ("notebooks",)),
        ("tests", ("workflow", "dev", "fuzz")),
        ("reproduce", ("workflow", "dev", "bench", "browser")),
    ],
)
def test_every_import_is_a_declared_dependency(folder: str, extras: tuple[str, ...]) -> None:
    declared = {canonicalize_name(requirement.name) for requirement in requirements(*extras)}
    distributions = packages_distributions()
    own = {PROJECT["name"], "__future__", "helpers"} | {file.stem for file in (ROOT / folder).rglob("*.py")}
    for file, module in imported_by(ROOT / folder):
        if module in sys.stdlib_module_names or module in own:
            continue
        given_by = {canonicalize_name(name) for name in distributions.get(module, [module])}
        assert given_by & declared, f"{file.relative_to(ROOT)} imports {module}, which pyproject.toml does not name"


def test_what_needs_no_extra_is_installed_without_one() -> None:
    """All but drawing: in an environment of the plain dependencies alone it is there."""
    declared = {canonicalize_name(requirement.name) for requirement in requirements()}
    extra = {canonicalize_name(requirement.name) for requirement in requirements("workflow", "tensorboard")} - declared
    distributions, drawing = packages_distributions(), ("figures/", "lessons/", "results/site.py", "results/markup.py")
    for file, module in imported_by(ROOT / "mixcl"):
        if not file.relative_to(ROOT / "mixcl").as_posix().startswith(drawing):
            given_by = {canonicalize_name(name) for name in distributions.get(module, [module])}
            assert not given_by & extra or given_by & declared, f"{file.name} imports {module}"
    lacking = [
        module for module, names in distributions.items() if {canonicalize_name(name) for name in names} <= extra
    ]
    assert {"papermill", "snakemake", "seaborn"} <= set(lacking)
    code = (
        f"import sys; sys.modules.update(dict.fromkeys({lacking}));"
        "import mixcl.cli.commands, mixcl.segment, mixcl.trainer, mixcl.data.check.run, mixcl.data.prepare.run,"
        "mixcl.results.verify, mixcl.baselines; mixcl.cli.main(['--help'])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("face", ["figures", "lessons"])
def test_what_needs_an_extra_says_which(face: str, monkeypatch: pytest.MonkeyPatch) -> None:
    package = import_module(f"mixcl.{face}")
    monkeypatch.setitem(sys.modules, "seaborn", None)
    with pytest.raises(
        InputError, match=r"^seaborn is not installed; pip install -e '.\[notebooks\]' in the repository$"
    ):
        reload(package)


def test_no_file_belongs_to_one_machine() -> None:
    """No address of a package index, no folder of the machine that something was made on."""
    index = r"pythonhosted\.org|pypi\.org/simple|--(?:extra-)?index-url|--find-links|file:///opt"
    folders = r"(?<![\w.$}~/-])/(?:work|root|opt/wheels|opt/pypi|home/\w+|Users/\w+|tmp/w)/"
    forbidden = re.compile(f"{index}|{folders}")
    here = re.compile(re.escape(str(ROOT)) + r"\b") if len(ROOT.parts) > 2 else None
    for file in tracked_files():
        if file == Path(__file__).resolve():
            continue
        text = file.read_bytes().decode(errors="ignore")
        found = forbidden.search(text) or (here and here.search(text))
        assert not found, f"{file.relative_to(ROOT)} holds {found.group(0)!r}"


def test_no_large_file_is_tracked() -> None:
    for file in tracked_files():
        assert file.stat().st_size <= 2_000_000, f"{file.relative_to(ROOT)} is over 2 MB"


def test_wheel_carries_the_profiles() -> None:
    wheel = PYPROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]
    assert wheel["packages"] == ["mixcl"]
    assert wheel["force-include"] == {"reproduce/profiles": "mixcl/profiles"}
