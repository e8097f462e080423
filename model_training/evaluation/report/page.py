"""The report as one HTML page without requests or scripts; every name is escaped."""

from collections.abc import Sequence
from functools import cache
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from model_training.evaluation.report import findings
from model_training.evaluation.report.models import style_of
from model_training.evaluation.report.plots import Plot
from model_training.evaluation.report.svg import inline_svg, stylesheet, swatch
from model_training.evaluation.results import Evaluation


def report_page(evaluation: Evaluation, plots: Sequence[Plot]) -> str:
    """The whole `report.html`."""
    drawn = [(plot, inline_svg(plot.figure, plot.name, plot.alt)) for plot in plots]
    slices = {
        f"By {name}": (name, findings.slice_rows(evaluation, name)) for name in evaluation.slices
    }
    return render(
        "page.html.jinja",
        evaluation=evaluation,
        plots=drawn,
        slices=slices,
    )


def render(template: str, **values: object) -> str:
    """Render a template of this folder with the values that every page needs."""
    light, dark = stylesheet()
    return (
        _environment()
        .get_template(template)
        .render(
            findings=findings,
            style_of=style_of,
            swatch=swatch,
            light=light,
            dark=dark,
            **values,
        )
    )


@cache
def _environment() -> Environment:
    return Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
