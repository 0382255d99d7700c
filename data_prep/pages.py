"""HTML pages from Jinja2 templates: one file with everything in it, for light, dark and phones.

    render(Path("slurm/tracker/templates/report.html"), title=…, …)

A template extends `templates/page.html`, which has the style of every page and of `charts.py`. What a
template shows is escaped; charts and other `Markup` are not escaped again.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

SHARED = Path(__file__).parent / "templates"


def render(template: Path, clean: Callable[[str], str] = str, **values: object) -> str:
    """The page.

    Args:
        template: a file, which may extend or include files of its own folder and of `templates/` here.
        clean: applied to every text before it is escaped, for example to show control characters.
        values: what the template uses; a name that is missing is an error.

    Raises:
        jinja2.UndefinedError: the template uses a name that `values` does not have.
    """

    def finalize(value: object) -> object:
        return value if isinstance(value, Markup) else clean(str(value))

    environment = Environment(
        loader=FileSystemLoader([template.parent, SHARED]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=finalize,
    )
    return environment.get_template(template.name).render(**values)
