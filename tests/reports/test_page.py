import base64
import re
import sys
import xml.etree.ElementTree as ElementTree
from html.parser import HTMLParser

import pytest

pytest.importorskip("matplotlib")
pytest.importorskip("jinja2")

from functional_lm.health import Finding
from functional_lm.reports.page import Figure, Sample, final_figures, page

VOID = {"meta", "br", "hr", "img", "input", "link", "source"}
EVIL = (
    "</pre></td><script>alert('x')</script><img src=x onerror=\"y\"> &amp; {{ x }} \x00\ud800\x1b"
)
SPIKE = Finding("spike", "warning", (3, 9), "the loss rose", "lower the rate")
DATA = "data:image/svg+xml;base64,"


class Page(HTMLParser):
    """Reads a page: every tag is closed; what it refers to, and its texts by tag."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.references, self.texts = [], [], [], {}
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        for name, value in attributes:
            assert not name.startswith("on")
            if name in ("src", "href", "xlink:href", "action", "data", "srcset", "poster"):
                self.references.append(value)
            self.references += re.findall(r"url\(([^)]*)\)", value or "")
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open:
            self.texts.setdefault(self.open[-1], []).append(data)

    def said(self, tag):
        return "".join(self.texts.get(tag, []))


def test_a_page_is_complete(run_records):
    settings = {"model": {"d_model": 128}, "dtype": "float32", "training": {"lr": 1e-3, "seed": 0}}
    findings = [SPIKE, SPIKE._replace(severity="error", steps=(5, 5))]
    text = page("my run", run_records(), settings=settings, findings=findings, parameters=1234)
    read = Page(text)
    assert read.said("title") == read.said("h1") == "my run"
    assert read.tags.count("img") == read.tags.count("source") == 10
    expected = ["Final figures", "Diagnosis", "Curves", "Samples", "Settings"]
    assert read.texts["h2"] == expected
    assert read.texts["pre"] == ["sample of 10", "sample of 20", "sample of 30", "sample of 40"]
    assert {"d_model", "dtype", "lr"} <= set(read.texts["th"])
    assert {"128", "float32", "0.001"} <= set(read.texts["td"])
    assert "1,234 " in read.texts["dd"]
    assert "steps 3 to 9" in read.said("small")
    assert "step 5" in read.said("small")
    assert "lower the rate" in read.texts["p"]


def test_a_page_loads_nothing(run_records):
    read = Page(page("run", run_records()))
    assert not {"script", "link", "iframe", "object", "embed", "base"} & set(read.tags)
    assert len(set(read.references)) == 20  # a light and a dark picture of each panel
    assert all(reference.startswith(DATA) for reference in read.references)
    for reference in read.references:
        ElementTree.fromstring(base64.b64decode(reference.removeprefix(DATA)))
    assert "@import" not in read.said("style")
    assert "url(" not in read.said("style")


def test_records_and_settings_never_become_markup(run_records):
    records = run_records(12)
    records[4] |= {"sample": EVIL, "fault": EVIL}
    records[4]["statistics"] = {name: {EVIL: 1.0} for name in records[4]["statistics"]}
    settings = {EVIL: {EVIL: EVIL}, "list": [EVIL, {"a": EVIL}], "n": None}
    text = page(
        EVIL, records, settings=settings, findings=[Finding(EVIL, EVIL, (1, 2), EVIL, EVIL)]
    )
    text.encode()
    assert not re.search("[\x00-\x08\x0b-\x1f]", text)
    read = Page(text)
    assert "script" not in read.tags
    assert all(reference.startswith(DATA) for reference in read.references)
    for tag in ("pre", "h1", "h3", "p", "th", "caption"):
        assert "<script>alert('x')</script>" in read.said(tag)
        assert "&amp; {{ x }}" in read.said(tag)


@pytest.mark.parametrize(
    "records",
    [
        [{"step": 1, "loss": 4.0}],
        [{"step": 7}],
        [{"step": 1, "loss": None, "val_loss": None, "fault": "x", "sample": None}],
    ],
)
def test_a_poor_run_has_a_page(records):
    read = Page(page("run", records))
    assert "No samples were recorded." in read.said("p")
    assert "No settings were recorded." in read.said("p")
    assert "Not recorded: validation loss" in read.said("p")
    assert "Diagnosis" not in read.texts["h2"]
    assert "Nothing found." in Page(page("run", records, findings=[])).said("li")


def test_of_many_samples_the_first_and_the_last_are_open(run_records):
    samples = [Sample(i, f"text {i}") for i in range(9)]
    text = page("run", run_records(3), samples=samples)
    assert re.findall(r"<details open><summary>Step (\d)", text) == ["0", "6", "7", "8"]
    assert text.count("<details") == 9


def test_final_figures(run_records):
    records = run_records()
    records[19]["val_loss"] = 0.5
    records[30]["fault"] = "not finite"
    mean = sum(record["loss"] for record in records) / 40
    assert final_figures(records, {"training": {"steps": 100}}, 10) == [
        Figure("steps", "40", "of 100"),
        Figure("training loss", f"{mean:.4f}", "mean of the last 40 steps"),
        Figure("validation loss", f"{records[-1]['val_loss']:.4f}", "at step 40"),
        Figure("best validation loss", "0.5000", "at step 20"),
        Figure("best perplexity", "1.649"),
        Figure("best bits per token", "0.7213"),
        Figure("parameters", "10"),
        Figure("tokens per second", "1,020", "median"),
        Figure("time", "0:01", "of all steps together"),
        Figure("updates skipped", "1", "the first at step 31"),
    ]
    assert final_figures([{"step": 3}], {"training": None}) == [Figure("steps", "3")]


def test_without_jinja_it_says_what_to_install(run_records, monkeypatch):
    monkeypatch.setitem(sys.modules, "jinja2", None)
    with pytest.raises(ImportError, match=r"Jinja2: pip install 'functional-lm\[plot\]'"):
        page("run", run_records())
