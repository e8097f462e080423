"""The report on an evaluation: `report.json`, `report.md`, plots, and one self-contained page.

    findings.py             the content: tables, sentences, warnings
    models.py               the color and description of each model
    plots.py, svg.py        figures, as PNG files and inside the page
    markdown.py, page.py    the two formats
    collected.py            several evaluations side by side
    writing.py              the files

The same evaluation gives the same bytes: nothing here reads the clock.
"""

from model_training.evaluation.report.collected import write_collected
from model_training.evaluation.report.writing import write, write_report

__all__ = ["write", "write_collected", "write_report"]
