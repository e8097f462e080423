"""Figures inside a page: SVG in the page's colors, light or dark, that loads nothing.

Every color of `models.py` and of the axes becomes a CSS variable; `stylesheet` defines them.
"""

import io
import re

from markupsafe import Markup, escape
from matplotlib.figure import Figure

from model_training.evaluation.report.models import STYLES, UNLISTED
from model_training.evaluation.report.plots import INK, MUTED, RULE, drawing

_MODELS = (*STYLES.values(), UNLISTED)
# Light color -> (the variable, dark color). A model may share both colors with the ink.
_VARIABLES = {
    **{style.light: (f"--model-{n}", style.dark) for n, style in enumerate(_MODELS)},
    INK: ("--ink", "#eceff1"),
    MUTED: ("--muted", "#a3abb3"),
    RULE: ("--rule", "#3a4149"),
}


def inline_svg(figure: Figure, name: str, alt: str) -> Markup:
    """The figure as an `<svg>` element; `name` is unique in the page: ids begin with it."""
    file = io.StringIO()
    with drawing():
        figure.savefig(
            file,
            format="svg",
            transparent=True,
            metadata={"Date": None, "Creator": None, "Format": None, "Type": None},
        )
    text = file.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r"<style type=\"text/css\">.*?</style>", "", text, flags=re.DOTALL)
    text = re.sub(r' xmlns(:xlink)?="[^"]*"', "", text)  # HTML knows both namespaces
    text = re.sub(r'\bid="', f'id="{name}-', text)
    text = re.sub(r'href="#', f'href="#{name}-', text)
    text = text.replace("url(#", f"url(#{name}-")
    for light, (variable, _) in _VARIABLES.items():
        text = text.replace(light, f"var({variable})")
    opening = re.search(r'<svg [^>]*?viewBox="([^"]+)"[^>]*>', text)
    assert opening is not None
    text = text.replace(
        opening[0],
        f'<svg viewBox="{opening[1]}" role="img" aria-label="{escape(alt)}" '
        'stroke-linejoin="round" stroke-linecap="butt">',
        1,
    )
    return Markup(text)  # noqa: S704  # nosec B704  matplotlib escapes text, and `alt` is escaped


def swatch(model: str) -> str:
    """The CSS color of a model in the page's own elements."""
    return f"var({_VARIABLES[STYLES.get(model, UNLISTED).light][0]})"


def stylesheet() -> tuple[dict[str, str], dict[str, str]]:
    """The variables of light and of dark pages, name -> color."""
    light = {variable: color for color, (variable, _) in _VARIABLES.items()}
    dark = dict(_VARIABLES.values())
    return light, dark
