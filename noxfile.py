"""The project's checks: bare ``nox`` runs them all."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import sys
import tempfile
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path
from zipfile import ZipFile

import nox

nox.needs_version = ">=2026.10"  # the first here whose sessions may run side by side
nox.options.sessions = [
    "lint",
    "heavy",  # early, as they are the longest
    "tests",
    "typing",
    "docs",
    "examples",
    "oldest",
    "wheel",
    "storage",
    "coverage",
]
nox.options.reuse_venv = "yes"
# Half of a session is installing, which leaves the processors idle; what one prints stays together.
nox.options.parallel = 2
# What is imported is compiled then: half of an installation is the compiling of what never is.
os.environ.setdefault("PIP_NO_COMPILE", "1")
os.environ.setdefault("PIP_DISABLE_PIP_VERSION_CHECK", "1")
# Newer Pythons that are missing are left out below, so only the oldest can be an error here.
nox.options.error_on_missing_interpreters = True

ROOT = Path(__file__).parent
PYPROJECT = nox.project.load_toml(ROOT / "pyproject.toml")
COVERAGE_DATA = ROOT / ".nox" / "coverage-data"
FLEET_COVERAGE = ROOT / ".nox" / "coverage-fleet"
PACKAGE = "kling_omni_async"
RUNNING = f"{sys.version_info.major}.{sys.version_info.minor}"
LEAST_KILLED = 0.95  # of all mutants
# By file, as the blocks of a page belong together.
SPREAD = ("--numprocesses=auto", "--maxprocesses=4", "--dist=loadfile")
BRIEF = "--hypothesis-profile=brief"
LIGHT = (*SPREAD, "-m", "not heavy and not many", BRIEF)
# Coverage doubles the time of a test, so what covers nothing new runs without; a seed, as what an
# example covers by chance is no proof.
COVERED = (*SPREAD, "-m", "not many", BRIEF, "--hypothesis-seed=0")
# Most of them wait, for leases of the dead and for processes, so there may be more than processors.
UNCOVERED = ("--numprocesses=4", "--dist=worksteal", "-m", "many or hypothesis")
# What talks to the run-time dependencies.
OF_THE_DEPENDENCIES = (
    *("tests/saving", "tests/cli", "tests/simulator", "tests/api/test_client.py"),
    *(f"tests/test_{name}.py" for name in ("engine", "frameworks", "inputs", "lifetimes")),
    *(f"tests/test_{name}.py" for name in ("models", "otel", "outcome", "public_surface")),
    *(f"tests/test_{name}.py" for name in ("real_time", "session", "streams")),
)
# What would notice a file that is missing in the wheel, or a path that only a checkout has.
OF_THE_WHEEL = (
    *("README.md", "docs"),
    *(f"tests/cli/test_{name}.py" for name in ("demo", "gallery", "start")),
    *(f"tests/test_{name}.py" for name in ("documents", "frameworks", "public_surface")),
    "tests/saving/test_save.py",
)
# Debian 13 has both, older ones the first alone.
REDIS_SERVERS = ("redis-server", "valkey-server")
# What only the session `fleet` can cover.
OF_REDIS = "*/_book/redis*.py"
SITE = ("--nitpicky", "--fail-on-warning", "--keep-going", "--fresh-env", "--quiet")


def runs(python: str) -> bool:
    """Whether this Python is here and works, which the shim of a version manager may not."""
    if python == RUNNING:
        return True
    path = shutil.which(f"python{python}")
    if path is None:
        return False
    return subprocess.run([path, "-c", ""], check=False, capture_output=True).returncode == 0


OLDEST, *NEWER = nox.project.python_versions(PYPROJECT)
MISSING = [python for python in NEWER if not runs(python)]
PYTHONS = [python for python in (OLDEST, *NEWER) if python not in MISSING]


if not runs(OLDEST):  # one line instead of one for each session
    nox.options.sessions = ["oldest_python"]

    @nox.session(python=False, allow_parallel=True)
    def oldest_python(session: nox.Session) -> None:
        """Say what nothing here can do without."""
        session.error(f"the checks need python{OLDEST} on the PATH; this is Python {RUNNING}")


def missing_for_faults() -> list[str]:
    """Name what the session `faults` needs and this machine has not."""
    path = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"  # the last two are not in everybody's
    programs = ("nginx", "openssl", "setpriv", "tinyproxy")
    missing = [program for program in programs if shutil.which(program, path=path) is None]
    return missing if loads("libnss_wrapper.so") else [*missing, "libnss_wrapper.so"]


def redis_servers() -> list[str]:
    """Name the servers that the session `fleet` can start here."""
    return [program for program in REDIS_SERVERS if shutil.which(program)]


def has_chromium() -> bool:
    """Whether the browser is here that the session `browser` needs."""
    return any(map(shutil.which, ("chromium", "chromium-browser", "google-chrome")))


def loads(library: str) -> bool:
    """Whether the linker finds a library."""
    try:
        ctypes.CDLL(library)
    except OSError:
        return False
    return True


def group(name: str) -> tuple[str, ...]:
    """Return the requirements of a dependency group."""
    return nox.project.dependency_groups(PYPROJECT, name)


def warn_of_missing_pythons(session: nox.Session) -> None:
    """Say aloud which Pythons are left out."""
    for python in MISSING:
        session.warn(f"NOT TESTED on Python {python}: no working python{python} on this machine")


def choice(session: nox.Session) -> Sequence[str]:
    """Return pytest's arguments: the caller's own, else all but the heavy tests."""
    if session.posargs:
        return session.posargs
    session.log(f"heavy tests run once, in tests-{OLDEST}, and all examples of properties in heavy")
    return LIGHT


@nox.session(python=False)
def dev(session: nox.Session) -> None:
    """Install all that the checks need into the environment that nox runs in."""
    needed = [*group("lint"), *group("typing"), *group("docs")]
    session.run(sys.executable, "-m", "pip", "install", "-e", ".[cli,fleet,otel,storage]", *needed)


@nox.session(python=OLDEST, tags=["quick"], allow_parallel=True)
def lint(session: nox.Session) -> None:
    """Check style, format and layers."""
    session.install(*group("lint"))
    session.run("ruff", "check")
    session.run("ruff", "format", "--check")
    session.run("lint-imports")


@nox.session(python=OLDEST, tags=["quick"], allow_parallel=True)
def typing(session: nox.Session) -> None:
    """Check the types, and that no public one is left open."""
    session.install("-e", ".[cli,fleet,otel,storage]", *group("typing"))
    session.run("mypy")
    session.run("pyright")
    session.run("pyright", "--ignoreexternal", "--verifytypes", PACKAGE)


@nox.session(python=OLDEST, allow_parallel=True)
def docs(session: nox.Session) -> None:
    """Build the site, any warning is an error, and follow its links; a network is not needed."""
    session.install("-e", ".[cli,otel,storage]", *group("docs"))
    session.run("sphinx-build", *SITE, "docs", "docs/_build/html")
    session.run("pytest", "tests/site", *session.posargs)


@nox.session(python=PYTHONS, allow_parallel=True)
def tests(session: nox.Session) -> None:
    """Run the tests, on the oldest Python under coverage; ``nox -s tests -- -k name`` runs some."""
    warn_of_missing_pythons(session)
    session.install("-e", ".[cli,otel,storage]", *group("test"))
    if session.python != OLDEST:
        session.run("pytest", *choice(session))
        return
    shutil.rmtree(COVERAGE_DATA, ignore_errors=True)
    COVERAGE_DATA.mkdir(parents=True)
    session.run(
        *("coverage", "run", "-m", "pytest", *(session.posargs or COVERED)),
        env={"COVERAGE_FILE": str(COVERAGE_DATA / ".coverage")},
    )


@nox.session(python=OLDEST, allow_parallel=True)
def heavy(session: nox.Session) -> None:
    """Run thousands of plans, kills at random moments, and all examples of properties."""
    session.install("-e", ".[cli,otel,storage]", *group("test"))
    session.run("pytest", *(session.posargs or UNCOVERED))


@nox.session(python=OLDEST, tags=["quick"], allow_parallel=True)
def unit(session: nox.Session) -> None:
    """Run the tests that start no process, on one Python: for whoever changes a line."""
    session.install("-e", ".[cli,otel,storage]", *group("test"))
    session.run("pytest", *(session.posargs or LIGHT))


@nox.session(python=OLDEST, allow_parallel=True)
def storage(session: nox.Session) -> None:
    """Save images to S3 over its real wire: moto's server, on this machine."""
    session.install("-e", ".[cli,otel,storage]", *group("storage"))
    session.run("pytest", "tests/storage", *session.posargs)


@nox.session(python=OLDEST, allow_parallel=True)
def examples(session: nox.Session) -> None:
    """Start each program of docs/examples and use it, beside the simulator."""
    if not has_chromium():
        session.warn("NOT LOOKED AT: the page of the web backend, as there is no chromium here")
    session.install("-e", ".[cli,otel,storage]", *group("examples"))
    session.run("pytest", "tests/examples", *(session.posargs or SPREAD))


@nox.session(python=OLDEST, reuse_venv=False, allow_parallel=True)
def oldest(session: nox.Session) -> None:
    """Run what talks to the run-time dependencies against the lower bound of each."""
    project = PYPROJECT["project"]
    extras = project["optional-dependencies"]
    bounds = [*project["dependencies"], *extras["cli"], *extras["otel"], *extras["storage"]]
    pins = [bound.replace(">=", "==") for bound in bounds]
    session.install("-e", ".[cli,otel,storage]", *pins, *group("test"))
    session.run("pytest", *(session.posargs or (*LIGHT, *OF_THE_DEPENDENCIES)))


@nox.session(python=OLDEST, reuse_venv=False, allow_parallel=True)
def wheel(session: nox.Session) -> None:
    """Run from the built wheel, outside the checkout, what tells whether it is whole."""
    session.install("build")
    with tempfile.TemporaryDirectory() as name:
        outside = Path(name)
        session.run("python", "-m", "build", "--outdir", name, silent=True)
        (built,) = outside.glob("*.whl")
        check_contents(session, built)
        session.install(f"{built}[cli,otel,storage]", *group("test"))
        for file in ("pyproject.toml", "conftest.py", "README.md", "CHANGELOG.md", "LICENSE"):
            shutil.copy(ROOT / file, outside)
        for folder in ("docs", "tests"):
            shutil.copytree(ROOT / folder, outside / folder)
        with session.chdir(outside):
            # Heavy ones, too: they start the program that was installed.
            brief = (*SPREAD, BRIEF, *OF_THE_WHEEL)
            session.run("pytest", *(session.posargs or brief))


def check_contents(session: nox.Session, built: Path) -> None:
    """Check that a wheel holds the typed package and nothing else."""
    with ZipFile(built) as archive:
        names = archive.namelist()
    if f"{PACKAGE}/py.typed" not in names:
        session.error("the wheel has no py.typed")
    strangers = [name for name in names if not name.startswith((f"{PACKAGE}/", f"{PACKAGE}-"))]
    if strangers:
        session.error(f"the wheel holds more than the package: {strangers}")


@nox.session(python=OLDEST, allow_parallel=True)
def faults(session: nox.Session) -> None:
    """Poll through nginx and tinyproxy; bare ``nox`` leaves it out, as it needs Debian packages."""
    if missing := missing_for_faults():
        session.skip(f"NOT TESTED with real intermediaries: no {', '.join(missing)} here")
    session.install("-e", ".[cli]", *group("test"))
    session.run("pytest", "tests/faults", *(session.posargs or SPREAD))


@nox.session(python=OLDEST, allow_parallel=True)
def fleet(session: nox.Session) -> None:
    """Keep books in a real Redis, and run a deployment; bare ``nox`` leaves it out.

    It needs a Debian package. It alone covers what speaks to Redis; under 100 % is a failure here,
    too.
    """
    servers = redis_servers()
    if not servers:
        session.skip(f"NOT TESTED in Redis: no {' or '.join(REDIS_SERVERS)} here")
    for program in set(REDIS_SERVERS).difference(servers):
        session.warn(f"NOT TESTED with {program}: there is none here")
    session.install("-e", ".[cli,fleet]", *group("fleet"))
    shutil.rmtree(FLEET_COVERAGE, ignore_errors=True)
    FLEET_COVERAGE.mkdir(parents=True)
    env = {"COVERAGE_FILE": str(FLEET_COVERAGE / ".coverage")}
    chosen = session.posargs or (*SPREAD, "-m", "not many", "tests/fleet")
    session.run("coverage", "run", "-m", "pytest", *chosen, env=env)
    if not session.posargs:
        session.run("pytest", *SPREAD, "--dist=worksteal", "-m", "many", "tests/fleet")
        for program in servers[1:]:
            again = (*SPREAD, "-m", "not many", "tests/fleet")
            session.run("pytest", *again, env={"FLEET_SERVER": program})
        session.run("coverage", "combine", "--quiet", env=env)
        session.run("coverage", "report", f"--include={OF_REDIS}", env=env)


@nox.session(python=OLDEST, allow_parallel=True)
def browser(session: nox.Session) -> None:
    """Look at gallery and site with Chromium; bare ``nox`` leaves it out: not everybody has it."""
    if not has_chromium():
        session.skip("NOT TESTED in a browser: no chromium here")
    session.install("-e", ".[cli,otel,storage]", *group("docs"))
    session.run("sphinx-build", *SITE, "docs", "docs/_build/html")
    session.run("pytest", "tests/browser", *session.posargs)


@nox.session(python=OLDEST, allow_parallel=True, requires=[f"tests-{OLDEST}"])
def coverage(session: nox.Session) -> None:
    """Combine what the tests covered on the oldest Python; under 100 % is a failure."""
    session.install(*group("coverage"))
    env = {"COVERAGE_FILE": str(COVERAGE_DATA / ".coverage")}
    session.run("coverage", "combine", "--keep", "--quiet", str(COVERAGE_DATA), env=env)
    session.run("coverage", "report", f"--omit={OF_REDIS}", env=env)


@nox.session(python=OLDEST)
def soak(session: nox.Session) -> None:
    """Send a million queries from one process and see that nothing grows; some ten minutes.

    ``nox -s soak -- book FILE`` works a book in a file, or in Redis, for about as long.
    """
    session.install("-e", ".[cli,fleet]", *group("test"))
    program, rest = "tests.program_soak", session.posargs
    if rest[:1] == ["book"]:
        program, rest = "tests.program_book_soak", rest[1:]
    session.run("python", "-m", program, *rest)


@nox.session(python=OLDEST)
def bench(session: nox.Session) -> None:
    """Measure speed and scale beside rivals, and write docs/benchmarks.md; a quarter of an hour.

    ``nox -s bench -- --quick`` only proves that it runs.
    """
    session.install("-e", ".", *group("bench"))
    session.run("python", "-m", "tests.benchmarks", *session.posargs)


@nox.session(python=OLDEST)
def mutation(session: nox.Session) -> None:
    """Break the pure modules in a thousand small ways; under 95 % noticed is a failure.

    Up to an hour; ``nox -s mutation -- 'kling_omni_async._policy.*'`` tries some again.
    """
    session.install("-e", ".[cli]", *group("mutation"))
    if not session.posargs:  # verdicts are kept, also where tests have changed since
        shutil.rmtree(ROOT / "mutants", ignore_errors=True)
    session.run("mutmut", "run", *session.posargs)
    results = session.run("mutmut", "results", "--all", "true", silent=True)
    verdicts = verdicts_by_module(str(results))
    for module, counts in sorted(verdicts.items()):
        session.log(f"{module}: {killed_share(counts):.1%} killed of {dict(counts)}")
    total = sum(verdicts.values(), Counter[str]())
    session.log(f"all: {killed_share(total):.1%} killed of {dict(total)}")
    if total["suspicious"]:
        session.error("some mutants could not be tried: pytest ended without a test that failed")
    if killed_share(total) < LEAST_KILLED:
        session.error(f"less than {LEAST_KILLED:.0%} of the mutants were killed")


def verdicts_by_module(results: str) -> dict[str, Counter[str]]:
    """Count how the mutants ended that were tried."""
    found: dict[str, Counter[str]] = defaultdict(Counter)
    for line in results.splitlines():
        mutant, _, verdict = line.strip().rpartition(": ")
        if "__mutmut_" in mutant and verdict != "not checked":
            found[mutant.rpartition(".")[0]][verdict] += 1
    return found


def killed_share(counts: Counter[str]) -> float:
    """Return the share of killed mutants; a time-out is none, as a busy machine has them too."""
    return counts["killed"] / max(1, counts.total())
