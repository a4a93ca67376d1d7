"""What is public is listed, documented and drawn; nothing else is."""

from __future__ import annotations

import ast
import builtins
import inspect
import re
import subprocess
import sys
from collections.abc import Iterator
from types import ModuleType

import pytest

import kling_omni_async
from kling_omni_async import errors
from kling_omni_async.errors import KlingOmniError

TREE_LINE = re.compile(r"^    ([│├└─ ]*)(\w+)(?: \((\w+)\))?(?: {2,}(.*?))??(?: {2,}(transient))?$")


def public_names(module: ModuleType) -> set[str]:
    """Give the public names of a module that are the package's own, but for submodules."""
    return {
        name
        for name in dir(module)
        if not name.startswith("_")
        and getattr(getattr(module, name), "__module__", "").startswith("kling_omni_async")
    }


def printed(code: str) -> str:
    """Give what a fresh Python prints."""
    command = [sys.executable, "-c", code]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def classes_below(kind: type[KlingOmniError]) -> Iterator[type[KlingOmniError]]:
    """Walk the real class tree as it was defined, leaving out underscored classes."""
    for below in kind.__subclasses__():
        if below.__module__ != errors.__name__:
            continue
        if not below.__name__.startswith("_"):
            yield below
        yield from classes_below(below)


def test_all_of_the_package() -> None:
    """`kling_omni_async.__all__` lists every public name, the version, and nothing else."""
    assert set(kling_omni_async.__all__) == public_names(kling_omni_async) | {"__version__"}


def test_a_name_that_is_not_there() -> None:
    """A slip in a name is told as for any module."""
    with pytest.raises(AttributeError, match="'kling_omni_async' has no attribute 'Sesion'"):
        getattr(kling_omni_async, "Sesion")  # noqa: B009 - a type checker refuses it too


def test_nothing_is_imported_before_it_is_used() -> None:
    """The package alone imports none of the libraries, so that signals can be taken over first."""
    libraries = "{'aiohttp', 'anyio', 'attr', 'cattrs', 'rich', 'cyclopts', 'jinja2', 'obstore'}"
    assert (
        printed(f"import kling_omni_async, sys; print({libraries} & {{*sys.modules}})") == "set()"
    )


def test_extras_are_not_imported_with_the_names() -> None:
    """Who uses all public names has none of the extras imported, nor what fetches images."""
    unwanted = "{'rich', 'cyclopts', 'jinja2', 'obstore', 'kling_omni_async._saving.download'}"
    code = f"from kling_omni_async import *; import sys; print({unwanted} & {{*sys.modules}})"
    assert printed(code) == "set()"


def test_errors_need_no_import_of_their_own() -> None:
    """`kling_omni_async.errors` is there without an import of its own, as the docs use it."""
    code = "import kling_omni_async as k; print(k.errors.ApiError is k.ApiError)"
    assert printed(code) == "True"


def test_all_of_errors() -> None:
    """`errors.__all__` lists the base and every public class below it, and nothing else."""
    assert set(errors.__all__) == {
        "KlingOmniError",
        *(kind.__name__ for kind in classes_below(KlingOmniError)),
    }


def test_package_has_all_errors() -> None:
    """Every error can be had from the package itself."""
    assert set(errors.__all__) < set(kling_omni_async.__all__)
    for name in errors.__all__:
        assert getattr(kling_omni_async, name) is getattr(errors, name)


@pytest.mark.parametrize("module", [kling_omni_async, errors], ids=lambda module: module.__name__)
def test_lists_are_sorted(module: ModuleType) -> None:
    """No name is listed twice, and they are in order."""
    assert list(module.__all__) == sorted(set(module.__all__))


@pytest.mark.parametrize("name", sorted({*kling_omni_async.__all__} - {"__version__"}))
def test_documented(name: str) -> None:
    """Each public name has a docstring of its own, and so has all that is public on it."""
    kind = getattr(kling_omni_async, name)
    assert kind.__doc__
    for attribute, value in (vars(kind) if inspect.isclass(kind) else {}).items():
        if attribute.startswith("_") or not (
            inspect.isfunction(value) or isinstance(value, property | classmethod | staticmethod)
        ):
            continue
        assert inspect.getdoc(getattr(kind, attribute)), f"{name}.{attribute}"


@pytest.mark.parametrize("name", sorted({*kling_omni_async.__all__} - {"__version__"}))
def test_home_is_the_package(name: str) -> None:
    """Each public class comes from this package and can be found again by its own name."""
    kind = getattr(kling_omni_async, name)
    assert kind.__module__.startswith("kling_omni_async.")
    assert kind.__qualname__ == name


def drawn_tree() -> dict[str, tuple[str | None, str | None, bool]]:
    """Read the tree of the docstring: each class's parent, builtin base and transience."""
    tree: dict[str, tuple[str | None, str | None, bool]] = {}
    path: list[str] = []
    text = inspect.cleandoc(errors.__doc__ or "").partition("::")[2].partition("What to write")[0]
    for line in filter(None, text.splitlines()):
        match = TREE_LINE.match(line)
        assert match, line
        branch, name, builtin, _, transient = match.groups()
        depth = len(branch) // 4
        path[depth:] = [name]
        tree[name] = (path[depth - 1] if depth else None, builtin, bool(transient))
    return tree


def real_tree() -> dict[str, tuple[str | None, str | None, bool]]:
    """Read the same of the classes themselves."""
    tree: dict[str, tuple[str | None, str | None, bool]] = {}
    for name in errors.__all__:
        kind: type[KlingOmniError] = getattr(errors, name)
        ours = [base.__name__ for base in kind.__mro__[1:] if base.__name__ in errors.__all__]
        others = [base.__name__ for base in kind.__bases__ if hasattr(builtins, base.__name__)]
        builtin = next((base for base in others if base != "Exception"), None)
        tree[name] = (next(iter(ours), None), builtin, kind.transient)
    return tree


def test_tree_of_the_docstring() -> None:
    """The tree drawn in the docstring of `errors` is the real one."""
    assert drawn_tree() == real_tree()


def test_tree_is_read() -> None:
    """The reader of that drawing sees parents, builtin bases and transience."""
    tree = drawn_tree()
    assert tree["KlingOmniError"] == (None, None, False)
    assert tree["ServerError"] == ("ApiError", None, True)
    assert tree["PollTimeoutError"] == ("KlingOmniError", "TimeoutError", False)


def test_overloads_take_what_the_method_takes() -> None:
    """What `poll` shows to type checkers alone has the parameters of the real one, in their order.

    Each of both kinds lacks what is for the other kind of input alone.
    """
    module = sys.modules[kling_omni_async.KlingOmniSession.__module__]
    tree = ast.parse(inspect.getsource(module))
    written = [
        [each.arg for each in (*node.args.args, *node.args.kwonlyargs)]
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef) and node.name == "poll"
    ]
    real = list(inspect.signature(kling_omni_async.KlingOmniSession.poll).parameters)
    of_book = [each for each in real if each != "expect_callback"]
    of_ids = [each for each in real if each != "until_empty"]
    assert written == [real, of_book, *[of_ids] * 3]
