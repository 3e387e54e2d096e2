"""The repository agrees with itself: packages, imports, commands, links, style."""

import ast
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import t2ilib

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "t2ilib"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
LOCK = [line for line in (ROOT / "requirements.lock").read_text().splitlines() if not line.startswith("#")]
ENVIRONMENT = yaml.safe_load((ROOT / "environment.yml").read_text())


def run(*command, **options):
    """Run a command in the repository, outside the `make` that may have started the tests."""
    outside = {name: value for name, value in os.environ.items() if name not in ("MAKEFLAGS", "MAKELEVEL", "MFLAGS")}
    options = {"cwd": ROOT, "env": outside, "capture_output": True, "text": True, "timeout": 120} | options
    return subprocess.run([str(part) for part in command], check=False, **options)


# ---- packages ----------------------------------------------------------------------------------------------------


UNLOCKED = {"quality"}  # the extras that `make setup` does not install


def direct_requirements(without: set[str] = UNLOCKED) -> list[Requirement]:
    groups = PROJECT["optional-dependencies"]
    extras = [line for name, group in groups.items() if name not in without for line in group]
    return [Requirement(line) for line in PROJECT["dependencies"] + extras]


def locked(python: str, platform: str) -> dict[str, list[str]]:
    """Return the versions that the lock gives each package on one Python and platform."""
    linux = platform == "linux"
    machine = {"linux": "x86_64", "darwin": "arm64", "win32": "AMD64"}[platform]
    where = {"python_version": python, "python_full_version": f"{python}.6", "sys_platform": platform}
    where |= {"platform_machine": machine, "os_name": "nt" if platform == "win32" else "posix"}
    where |= {"platform_system": "Linux" if linux else "", "implementation_name": "cpython"}
    versions = {}
    for requirement in map(Requirement, LOCK):
        if requirement.marker is None or requirement.marker.evaluate(where):
            (pin,) = requirement.specifier
            versions.setdefault(canonicalize_name(requirement.name), []).append(pin.version)
    return versions


def test_lock_holds_exact_public_versions_only():
    assert len(LOCK) > 100
    for line in LOCK:
        assert re.fullmatch(r"[a-z0-9-]+==[0-9][0-9a-z.]*( ; [^;]+)?", line), line


@pytest.mark.parametrize("platform", ["linux", "darwin", "win32"])
@pytest.mark.parametrize("python", ["3.10", "3.11", "3.12", "3.13", "3.14"])
def test_lock_satisfies_pyproject(python, platform):
    versions = locked(python, platform)
    assert {name: found for name, found in versions.items() if len(found) > 1} == {}
    for requirement in direct_requirements():
        (version,) = versions[canonicalize_name(requirement.name)]
        assert requirement.specifier.contains(version), f"{requirement} against {version}"
    assert "setuptools" in versions  # `make setup` builds the package without build isolation


def test_environment_agrees_with_lock_and_pyproject():
    (python,) = [line for line in ENVIRONMENT["dependencies"] if str(line).startswith("python=")]
    versions = locked(python.removeprefix("python="), "linux")
    (packages,) = [line["pip"] for line in ENVIRONMENT["dependencies"] if isinstance(line, dict)]
    pins = [line for line in packages if not line.startswith("-")]
    names = [canonicalize_name(requirement.name) for requirement in direct_requirements()]
    assert pins == [f"{name}=={versions[name][0]}" for name in names]
    assert packages[0] == "--constraint requirements.lock"
    assert packages[-1] == "--editable ."


def test_one_version_number_and_licence():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == PROJECT["version"] == t2ilib.__version__
    assert citation["license"] == PROJECT["license"] == "MIT"
    assert "The t2ilib authors" in (ROOT / "LICENSE").read_text()


def test_library_imports_declared_packages_only():
    imported_as = {"pillow": "PIL", "pyyaml": "yaml", "open_clip_torch": "open_clip"}
    names = [requirement.name for requirement in direct_requirements(without=set())]
    known = (
        {imported_as.get(name, name.replace("-", "_")) for name in names} | set(sys.stdlib_module_names) | {"t2ilib"}
    )
    for path in PACKAGE.rglob("*.py"):
        unknown = {module.split(".")[0] for module in imports(path.read_text(), path)} - known
        assert not unknown, f"{path.relative_to(ROOT)}: {unknown} not among the dependencies of pyproject.toml"


# ---- import directions -------------------------------------------------------------------------------------------

GROUND = {  # the ground floor: these import only each other, as listed
    "errors": set(),
    "files": {"errors"},
    "features": set(),
    "pictures": {"errors"},
    "provenance": {"files"},
    "devices": {"errors"},
    "settings": {"errors"},
    "weights": {"errors", "files"},
    "memory": {"errors"},
    "torch_files": {"errors"},
    "losses": {"errors"},
    "task": {"errors", "features", "settings"},
}
FLOORS = {  # what stands on it; each may import the ground floor, itself, and what is named
    "data": set(),
    "encoders": {"data"},
    "models": set(),
    "training": set(),
    "metrics": {"data", "encoders"},
    "official": {"data", "encoders", "models"},
    "plots": set(),
    "summary": set(),
    "assembly": {"data", "encoders", "models", "metrics", "training"},
    "sampler": {"encoders", "training"},
    "released": {"encoders", "official", "sampler"},
    "sampling": {"assembly", "encoders", "released", "sampler", "training"},
    "sheets": {"data", "plots", "sampler"},
    "measurement": {"assembly", "data", "encoders", "metrics", "sampler"},
    "experiment": {"assembly", "data", "encoders", "measurement", "plots", "sampling", "training"},
    "explore": {
        "assembly",
        "data",
        "encoders",
        "metrics",
        "models",
        "plots",
        "released",
        "sampler",
        "sampling",
        "sheets",
        "training",
    },
    "comparison": {"metrics", "models", "training"},
    "studies": {"comparison", "metrics"},
    "tables": {"comparison", "metrics", "training"},
    "figures": {
        *("comparison", "data", "explore", "measurement", "metrics", "models", "plots", "sampling", "studies"),
        *("tables", "training"),
    },
    "executed": set(),
    "course": {"executed"},
    "side_by_side": {
        "assembly",
        "comparison",
        "encoders",
        "metrics",
        "models",
        "plots",
        "sampler",
        "sampling",
        "summary",
        "training",
    },
    "commands": {
        "assembly",
        "data",
        "encoders",
        "experiment",
        "measurement",
        "metrics",
        "models",
        "sampling",
        "sheets",
        "side_by_side",
        "training",
    },
    "cli": {
        "commands",
        "course",
        "data",
        "encoders",
        "explore",
        "figures",
        "measurement",
        "metrics",
        "plots",
        "sampler",
        "sampling",
        "sheets",
        "training",
    },
}


def imports(source: str, path: Path) -> set[str]:
    """Return the modules a file imports, wherever it does, except under `if TYPE_CHECKING`."""
    tree, found = ast.parse(source), set()
    typing_only = {
        inner
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        for inner in ast.walk(node)
    }
    package = path.relative_to(ROOT).parent.parts
    for node in set(ast.walk(tree)) - typing_only:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else ()
            module = ".".join([*above, *([node.module] if node.module else [])])
            found |= {f"{module}.{alias.name}" for alias in node.names} if module == "t2ilib" else {module}
    return found


def wrong_directions(source: str, path: Path) -> set[str]:
    """Return the parts of t2ilib that a file imports and must not."""
    part = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    if part == "__init__":
        return set()
    modules = [module.split(".") for module in imports(source, path)]
    used = {module[1] for module in modules if module[0] == "t2ilib" and len(module) > 1} - {"__version__"}
    return used - (GROUND[part] if part in GROUND else {part, *GROUND, *FLOORS[part]})


def test_every_module_has_its_floor():
    parts = {path.relative_to(PACKAGE).parts[0].removesuffix(".py") for path in PACKAGE.rglob("*.py")} - {"__init__"}
    assert parts == GROUND.keys() | FLOORS.keys()


def test_floors_have_no_cycle():
    seen: set[str] = set()
    for part, below in [*GROUND.items(), *FLOORS.items()]:
        assert below <= seen, f"{part} imports {below - seen}, which stand above it"
        seen.add(part)


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_import_directions(path):
    assert wrong_directions(path.read_text(), path) == set()


@pytest.mark.parametrize(
    ("file", "source", "expected"),
    [
        ("models/dcgan.py", "from t2ilib.training.loop import train", {"training"}),
        ("models/dcgan.py", "from ..data import load", {"data"}),
        ("models/dcgan.py", "from t2ilib import losses, plots", {"plots"}),
        ("losses.py", "def f():\n    import t2ilib.files", {"files"}),
        ("training/loop.py", "from t2ilib.models.dcgan import Generator", {"models"}),
        ("training/loop.py", "from t2ilib.task import System", set()),
        ("metrics/evaluate.py", "from t2ilib.models import build", {"models"}),
        ("data/batches.py", "if TYPE_CHECKING:\n    from t2ilib.encoders import CaptionFeatures", set()),
        ("sampling.py", "from t2ilib.experiment import run_recipe", {"experiment"}),
    ],
)
def test_wrong_directions_are_seen(file, source, expected):
    assert wrong_directions(source, PACKAGE / file) == expected


# ---- commands ----------------------------------------------------------------------------------------------------


def make_targets() -> set[str]:
    return set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))


def test_make_lists_its_targets():
    listed = set(re.findall(r"^make (\w+)", run("make").stdout, re.MULTILINE))
    assert listed == make_targets() == {"help", "setup", "course", "test", "lab", "explorer", "figures", "clean"}


@pytest.fixture
def copy(tmp_path):
    """What `make setup` reads, in an empty folder."""
    for name in ("Makefile", "requirements.lock", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path)
    return tmp_path


def test_setup_does_nothing_when_up_to_date(copy):
    (copy / ".venv").mkdir()
    stamp = copy / ".venv/.ready"
    stamp.touch()
    assert "venv .venv" not in run("make", "--dry-run", "setup", cwd=copy).stdout
    os.utime(stamp, (0, 0))
    assert "venv .venv" in run("make", "--dry-run", "setup", cwd=copy).stdout


@pytest.mark.parametrize(("failing", "remedy"), [("version_info", "3.10 or newer"), ("ensurepip", "python3-venv")])
def test_setup_says_what_is_missing(copy, failing, remedy):
    fake = copy / "python"
    fake.write_text(f'#!/bin/sh\ncase "$2" in *{failing}*) exit 1;; esac\n')
    fake.chmod(0o755)
    result = run("make", "setup", f"PYTHON={fake}", cwd=copy)
    assert result.returncode
    assert remedy in result.stderr
    assert not (copy / ".venv").exists()


def test_continuous_integration_runs_make_test():
    script = ROOT / ".ci/run"
    assert os.access(script, os.X_OK)
    assert "make test" in script.read_text()
    assert run("bash", "-n", script).returncode == 0


def test_modules_of_tests_have_different_names():
    """Pytest imports those outside of packages by their name alone, and refuses the second of a name."""
    outside = [path.name for path in (ROOT / "tests").rglob("test_*.py") if not (path.parent / "__init__.py").exists()]
    assert sorted({name for name in outside if outside.count(name) > 1}) == []


# ---- README ------------------------------------------------------------------------------------------------------


@pytest.fixture
def readme() -> str:
    return (ROOT / "README.md").read_text(encoding="utf-8")


def test_readme_is_short_and_has_two_make_commands(readme):
    assert len(readme.splitlines()) <= 150
    first_block = re.search(r"```(?:bash|sh|console)\n(.*?)```", readme, re.DOTALL).group(1)
    assert "make course" in first_block
    assert "make lab" in readme


def test_readme_commands_exist(readme):
    blocks = "\n".join(re.findall(r"```(?:bash|sh|console)\n(.*?)```", readme, re.DOTALL))
    assert set(re.findall(r"\bmake ([a-z]\w*)", blocks)) <= make_targets()
    for module in re.findall(r"python3? -m (t2ilib[\w.]*)", blocks):
        assert (ROOT / (module.replace(".", "/") + ".py")).exists(), module
    for command in sorted(set(re.findall(r"\bt2i ([a-z]\w*)", blocks))):
        result = run(sys.executable, "-m", "t2ilib.cli", command, "--help")
        assert result.returncode == 0, f"t2i {command} --help: {result.stderr}"


def test_readme_links(readme):
    targets = re.findall(r"\]\(([^)\s]+)\)", readme) + re.findall(r'(?:src|href)="([^"]+)"', readme)
    local = [target.split("#")[0] for target in targets if not re.match(r"https?://|#", target)]
    assert [target for target in local if not (ROOT / target).exists()] == []
    images = re.findall(r"!\[[^\]]*\]\(([^)\s]+)\)", readme) + re.findall(r'<img[^>]*src="([^"]+)"', readme)
    assert images
    assert [image for image in images if image.startswith("http")] == []
    chapters = {f"notebooks/{path.name}" for path in (ROOT / "notebooks").glob("[0-9][0-9]_*.ipynb")}
    assert chapters <= set(local)


# ---- style -------------------------------------------------------------------------------------------------------


def repository_files() -> list[Path]:
    """Return the files git tracks or would track; everything but the usual litter where there is no git."""
    listed = run("git", "ls-files", "--cached", "--others", "--exclude-standard", "-z")
    if listed.returncode == 0:
        return [ROOT / name for name in listed.stdout.split("\0") if name and (ROOT / name).is_file()]
    litter = {".venv", ".git", "runs", "__pycache__", ".pytest_cache", ".ruff_cache", ".hypothesis"}
    return [path for path in ROOT.rglob("*") if path.is_file() and not litter & set(path.relative_to(ROOT).parts)]


def absolute_paths(text: str) -> list[str]:
    """Return the paths of one machine, such as a home folder's, that a text contains."""
    text = re.sub(r"data:image/[^\"')]*|\"image/[a-z+]+\": \"[^\"]*\"", "", text)
    return re.findall(r"(?<![\w.:/~-])/(?:home|root|work|Users|mnt|opt)/[\w.]+|\b[A-Z]:\\\\?Users\b", text)


def test_no_absolute_paths():
    binary = {".png", ".npy", ".npz", ".safetensors", ".zip", ".pdf", ".ttf"}
    found = {}
    for path in repository_files():
        if path.suffix not in binary and not path.name.startswith("test_"):  # tests hold examples
            paths = absolute_paths(path.read_text(encoding="utf-8", errors="ignore"))
            found |= {str(path.relative_to(ROOT)): paths} if paths else {}
    assert found == {}


def test_absolute_paths_are_seen():
    assert absolute_paths("open('/home/someone/birds')") == ["/home/someone"]
    assert absolute_paths(r"C:\Users\someone") == [r"C:\Users"]
    assert absolute_paths("https://example.org/home/page ../elsewhere/x data:image/png;base64,a+/opt/b") == []


def test_top_level_stays_small():
    entries = {path.relative_to(ROOT).parts[0] for path in repository_files()}
    assert len(entries - {".gitignore", ".gitattributes"}) <= 15, sorted(entries)


@pytest.mark.parametrize("command", [["check"], ["format", "--check"]], ids=["lint", "format"])
def test_ruff(command):
    result = run(sys.executable, "-m", "ruff", *command, "--no-cache", ".")
    assert result.returncode == 0, result.stdout + result.stderr
