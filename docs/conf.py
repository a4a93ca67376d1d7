"""How Sphinx builds these pages: ``nox -s docs``."""

from __future__ import annotations

import builtins
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sphinx.pycode import ModuleAnalyzer

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))  # for what is beside this file

import inventories  # noqa: E402 - see above

import kling_omni_async  # noqa: E402 - as above
from kling_omni_async import TaskBook, _session  # noqa: E402 - as above
from kling_omni_async._book.work import BookWork  # noqa: E402 - as above

if TYPE_CHECKING:
    from docutils.nodes import Element, TextElement
    from sphinx.application import Sphinx
    from sphinx.environment import BuildEnvironment

project = "kling-omni-async"
author = "kling-omni-async contributors"
project_copyright = "kling-omni-async contributors"
version = release = kling_omni_async.__version__

extensions = [
    "myst_nb",  # brings MyST, and runs the notebook
    "sphinx.ext.autodoc",
    "sphinx.ext.intersphinx",
    "sphinx.ext.napoleon",
]
exclude_patterns = ["_build", "examples/fleet/README.md"]
nitpicky = True
default_role = "py:obj"

html_theme = "furo"
html_title = f"kling-omni-async {release}"
html_favicon = "_static/icon.svg"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_js_files = [("site.js", {"defer": "defer"})]
html_theme_options = {"light_logo": "logo-light.svg", "dark_logo": "logo-dark.svg"}
html_show_sphinx = False

myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3

nb_execution_mode = "force"
nb_execution_raise_on_error = True
nb_execution_timeout = 120

autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
napoleon_numpy_docstring = False
python_use_unqualified_type_names = True

# Another address for the inventories, such as a mirror's: {name} stands for the project's.
MIRROR = os.environ.get("DOCS_INVENTORIES")
SITES = {
    name: MIRROR.format(name=name) if MIRROR else site for name, site in inventories.SITES.items()
}
FETCHED = inventories.fetched(HERE / "_build" / "inventories", SITES, within_s=3.0)
intersphinx_mapping = {name: (SITES[name], str(file)) for name, file in FETCHED.items()}

# Our own names are all checked. Those of others are text where their inventory has not come, and
# a new release of theirs must not break our build.
_LIBRARIES = ("aiohttp", "anyio", "attr", "attrs", "opentelemetry")
_OTHERS = "|".join([*dir(builtins), *sys.stdlib_module_names, *_LIBRARIES])
nitpick_ignore_regex = [("py:.*", rf"({_OTHERS})(\..*)?")]
nitpick_ignore = [
    # Said in words where it is taken: anything with the two methods of a store of obstore.
    ("py:class", "kling_omni_async._saving.stores.ObjectStore"),
    ("py:class", "kling_omni_async._book.redis_client.RedisClient"),  # or of a client of Redis
    # The same: what is only entered.
    ("py:class", "kling_omni_async._book.work.BookWork"),
]


HOMES = (
    "kling_omni_async",
    "kling_omni_async.errors",
    "kling_omni_async.simulator",
    "kling_omni_async.KlingOmniSession",
)


def link_by_public_name(
    app: Sphinx, env: BuildEnvironment, node: Element, text: TextElement
) -> Element | None:
    """Find what is named by the module where it is written, or by its bare name."""
    module, _, name = str(node.get("reftarget", "")).rpartition(".")
    if module == "aiohttp.client":  # intersphinx, which is asked next, knows it by its public name
        node["reftarget"] = f"aiohttp.{name}"
    if module and not module.startswith("kling_omni_async"):
        return None
    python = env.domains.python_domain
    found = (
        python.resolve_xref(env, env.docname, app.builder, "obj", f"{home}.{name}", node, text)
        for home in HOMES
    )
    return next(filter(None, found), None)


def name_public_bases(
    _app: Sphinx, _name: str, _which: type, _options: object, bases: list[type]
) -> None:
    """Show the nearest base that users can see."""
    bases[:] = [base.__base__ if base.__name__.startswith("_") else base for base in bases]


def show_one_signature(_app: Sphinx) -> None:
    """Show signatures as they are written: overloads are for type checkers."""
    # What only type checkers import: without it no type of such a signature is known.
    vars(_session).update(TaskBook=TaskBook, BookWork=BookWork)
    analyzer = ModuleAnalyzer.for_module("kling_omni_async._session")
    analyzer.analyze()
    analyzer.overloads.clear()


def show_defaults(
    _app: Sphinx,
    _what: str,
    _name: str,
    _which: object,
    _options: object,
    signature: str | None,
    returns: str | None,
) -> tuple[str | None, str | None]:
    """Show the default that a factory makes, where attrs shows that there is one."""
    return signature and signature.replace("= NOTHING", "= {}"), returns


def setup(app: Sphinx) -> dict[str, Any]:
    """Tell Sphinx of what is here."""
    app.connect("missing-reference", link_by_public_name, priority=400)  # before intersphinx
    app.connect("autodoc-process-bases", name_public_bases)
    app.connect("builder-inited", show_one_signature)
    app.connect("autodoc-process-signature", show_defaults)
    return {"parallel_read_safe": True}
