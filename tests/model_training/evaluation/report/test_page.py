"""The page that a colleague opens: whole, safe, and the same every time."""

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from model_training.evaluation.report import write
from model_training.evaluation.results import MODELS
from tests.model_training.evaluation.report.builders import (
    STRENGTHS,
    a_slice,
    an_evaluation,
    renamed,
)

VOID = {"meta", "br", "img", "use", "path"}


class Outline(HTMLParser):
    """Collects ids and what is left open; an end tag that fits nothing open is kept as broken."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.ids: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.broken: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self.ids += [value for name, value in attrs if name == "id"]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self.ids += [value for name, value in attrs if name == "id"]

    def handle_endtag(self, tag):
        if tag in VOID:
            return
        if not self.open or self.open.pop() != tag:
            self.broken.append(tag)


def test_the_page_asks_nothing_of_the_network_and_runs_nothing(page):
    assert not re.search(r"https?:|//[a-z]|@import|url\((?!#)", page)
    assert not re.search(r"<script|<link|<iframe|<img|javascript:|\son\w+=", page)


def test_every_element_is_closed_and_every_id_is_unique(page):
    outline = Outline(page)

    assert (outline.open, outline.broken) == ([], [])
    assert len(outline.ids) == len(set(outline.ids)) > 20


def test_every_reference_within_the_page_has_its_target(page):
    wanted = set(re.findall(r'href="#([^"]+)"', page)) | set(re.findall(r"url\(#([^)]+)\)", page))
    assert wanted
    assert wanted <= set(Outline(page).ids)


def test_every_plot_says_in_words_what_it_shows(page):
    drawings = [attrs for tag, attrs in Outline(page).tags if tag == "svg"]

    assert len(drawings) == 6
    assert all(attrs["role"] == "img" and len(attrs["aria-label"]) > 20 for attrs in drawings)


def test_every_header_of_a_table_says_what_it_heads(page):
    headers = [attrs for tag, attrs in Outline(page).tags if tag == "th"]

    assert headers
    assert {attrs.get("scope") for attrs in headers} == {"col", "row"}


def test_every_model_and_every_metric_stands_in_the_page_with_its_interval(page):
    for model, result in an_evaluation().models.items():
        assert f"</span>{model}" in page
        for name in ("auc", "auc_user", "hr@3", "mrr@5", "ndcg@10"):
            ends = result.metrics[f"{name}_low"], result.metrics[f"{name}_high"]
            assert f"{result.metrics[name]:.3f}</span><small>[{ends[0]:.3f}, {ends[1]:.3f}]" in page


@pytest.mark.parametrize("name", ["<script>alert(1)</script>", '"><b onload=x>', "$\\frac{$ & _x"])
def test_a_hostile_name_is_shown_and_never_obeyed(tmp_path, name):
    evaluation = renamed(an_evaluation(models=("random", "sasrec")), "sasrec", name)
    page = Path(write(evaluation, tmp_path)["report.html"]).read_text()
    outline = Outline(page)

    assert not {"script", "b"} & {tag for tag, _ in outline.tags}
    assert (outline.open, outline.broken) == ([], [])
    assert name in "".join(attrs.get("aria-label") or "" for _, attrs in outline.tags)


def test_a_hostile_slice_and_a_hostile_fact_are_shown_and_never_obeyed(tmp_path):
    evil = "</style></svg><script>x</script>"
    facts = {evil: {evil: evil}, "left_out": {"mllm": evil}, "command": evil}
    evaluation = an_evaluation(facts=facts, slices=a_slice(evil, evil), models=("random", "mllm"))

    page = Path(write(evaluation, tmp_path)["report.html"]).read_text()

    assert "<script" not in page
    assert (Outline(page).open, Outline(page).broken) == ([], [])


def test_a_model_keeps_its_color_whoever_stands_beside_it(page, tmp_path):
    evaluation = an_evaluation(models=("random", "sasrec"), slices={})
    of_two = Path(write(evaluation, tmp_path)["report.html"]).read_text()

    color = re.compile(r'background: (var\(--[\w-]+\))" aria-hidden="true"></span>sasrec')
    assert set(color.findall(page)) == set(color.findall(of_two))
    assert len(set(color.findall(page))) == 1


def test_every_color_of_the_page_is_defined_for_light_and_for_dark(page):
    light, _, dark = page.partition("prefers-color-scheme: dark")

    for name in set(re.findall(r"var\((--[\w-]+)\)", page)):
        assert f"{name}:" in light
        assert f"{name}:" in dark.partition("@media print")[0]


def test_the_models_of_a_report_are_those_that_are_built_here():
    assert tuple(STRENGTHS) == MODELS
