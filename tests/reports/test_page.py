import re
from html.parser import HTMLParser
from typing import NamedTuple

import pytest

pytest.importorskip("matplotlib")

from functional_lm.reports.page import Sample, final_figures, page

VOID = {"meta", "br", "hr", "img", "input", "link"}
EVIL = "</pre></td><script>alert('x')</script><img src=x onerror=\"y\"> &amp; $x$ \x00\ud800\x1b"


class Finding(NamedTuple):
    name: str = "spike"
    severity: str = "warning"
    steps: tuple = (3, 9)
    evidence: str = "the loss rose"
    remedy: str = "lower the rate"


class Page(HTMLParser):
    """Reads a page: that each tag is closed, what it refers to, and what it says."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.ids, self.references, self.texts = [], [], [], [], {}
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attributes):
        self.handle_startendtag(tag, attributes)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.tags.append(tag)
        for name, value in attributes:
            assert not name.startswith("on")
            if name == "id":
                self.ids.append(value)
            elif name in ("src", "href", "xlink:href", "action", "data", "srcset", "poster"):
                self.references.append(value)
            self.references += re.findall(r"url\(([^)]*)\)", value or "")

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open:
            where = self.texts.setdefault(self.open[-1], [])
            where.append(data)

    def said(self, tag):
        return "".join(self.texts.get(tag, []))


def test_a_page_is_whole_and_needs_nothing_else(run_records):
    settings = {"model": {"d_model": 128}, "dtype": "float32", "training": {"lr": 1e-3, "seed": 0}}
    findings = [Finding(), Finding("stuck", "error", (5, 5))]
    text = page("my run", run_records(), settings=settings, findings=findings, parameters=1234)
    read = Page(text)
    assert read.said("title") == read.said("h1") == "my run"
    assert read.tags.count("svg") == read.tags.count("figure") == 10
    for word in ("Final figures", "Diagnosis", "Curves", "Samples", "Settings"):
        assert word in read.texts["h2"]
    assert read.texts["pre"] == ["sample of 10", "sample of 20", "sample of 30", "sample of 40"]
    assert {"d_model", "dtype", "lr"} <= set(read.texts["th"])
    assert {"128", "float32", "0.001"} <= set(read.texts["td"])
    assert "1,234 " in read.texts["dd"]
    assert "steps 3 to 9" in read.texts["small"]
    assert "step 5" in read.texts["small"]
    assert "lower the rate" in read.texts["p"]


def test_nothing_is_loaded_from_elsewhere(run_records):
    read = Page(page("run", run_records()))
    assert not {"script", "link", "img", "iframe", "object", "embed", "base"} & set(read.tags)
    # Pictures refer to their own parts only, and each part has an id of its own.
    assert read.references
    assert all(reference.startswith("#") for reference in read.references)
    assert {reference[1:] for reference in read.references} <= set(read.ids)
    assert len(read.ids) == len(set(read.ids))
    assert "@import" not in read.said("style")
    assert "url(" not in read.said("style")


def test_what_a_run_holds_is_text_and_never_markup(run_records):
    records = run_records(12)
    records[4] |= {"sample": EVIL, "fault": EVIL}
    records[4]["statistics"] = {name: {EVIL: 1.0} for name in records[4]["statistics"]}
    settings = {EVIL: {EVIL: EVIL}, "list": [EVIL, {"a": EVIL}], "n": None}
    findings = [Finding(EVIL, EVIL, (1, 2), EVIL, EVIL)]
    text = page(EVIL, records, settings=settings, findings=findings)
    text.encode()
    assert not re.search("[\x00-\x08\x0b-\x1f]", text)
    read = Page(text)
    assert "script" not in read.tags
    assert "img" not in read.tags
    assert "<script>alert('x')</script>" in read.said("pre")
    assert "<script>alert('x')</script>" in read.said("h1")
    assert "&amp;" in read.said("td")


@pytest.mark.parametrize(
    "records",
    [
        [{"step": 1, "loss": 4.0}],
        [{"step": 7}],
        [{"step": 1, "loss": None, "val_loss": None, "fault": "x", "sample": None}],
    ],
)
def test_a_run_that_recorded_little_has_a_page(records):
    read = Page(page("run", records))
    assert "No samples were recorded." in read.said("p")
    assert "No settings were recorded." in read.said("p")
    assert "Not recorded: validation loss" in read.said("p")
    assert "Diagnosis" not in read.texts["h2"]
    assert "Nothing conspicuous." in Page(page("run", records, findings=[])).said("p")


def test_of_many_samples_the_first_and_the_last_are_open(run_records):
    samples = [Sample(i, f"text {i}") for i in range(9)]
    text = page("run", run_records(3), samples=samples)
    assert re.findall(r"<details open><summary>Step (\d)", text) == ["0", "6", "7", "8"]
    assert text.count("<details") == 9


def test_final_figures(run_records):
    records = run_records()
    records[19]["val_loss"] = 0.5
    records[30]["fault"] = "not finite"
    found = final_figures(records, {"training": {"steps": 100}}, 10)
    mean = sum(record["loss"] for record in records) / 40
    assert found["steps"] == ("40", "of 100")
    assert found["training loss"] == (f"{mean:.4f}", "mean of the last 40 steps")
    assert found["validation loss"] == (f"{records[-1]['val_loss']:.4f}", "at step 40")
    assert found["best validation loss"] == ("0.5000", "at step 20")
    assert found["best perplexity"] == ("1.649", "")
    assert found["best bits per token"] == ("0.7213", "")
    assert found["tokens per second"] == ("1,020", "median")
    assert found["time"] == ("0:01", "of all steps together")
    assert found["updates skipped"] == ("1", "the first at step 31")
    assert found["parameters"] == ("10", "")
    assert final_figures([{"step": 3}], {"training": None}) == {"steps": ("3", "")}
