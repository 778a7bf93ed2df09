import base64
import re
import sys
import xml.etree.ElementTree as ElementTree

import pytest

pytest.importorskip("matplotlib")
pytest.importorskip("jinja2")

from functional_lm.health import Finding
from functional_lm.reports.page import Figure, final_figures, page

EVIL = "</pre></td><script>alert('x')</script><img src=x onerror='y'/> &amp; {{ x }} \x00\ud800\x1b"
SPIKE = Finding("spike", "warning", (3, 9), "the loss rose", "lower the rate")
DATA = "data:image/svg+xml;base64,"


class Page:
    """A page as XML, so every tag is closed."""

    def __init__(self, *arguments, **settings):
        self.text = page(*arguments, **settings)
        assert not re.search("[\x00-\x08\x0b-\x1f]", self.text)
        self.elements = list(ElementTree.fromstring(self.text.encode()).iter())
        self.tags = [element.tag for element in self.elements]

    def texts(self, tag):
        return ["".join(one.itertext()).strip() for one in self.elements if one.tag == tag]

    def references(self):
        names = {"src", "srcset", "href", "action", "data", "poster", "style"}
        return [one.get(name) for one in self.elements for name in names & set(one.keys())]


SETTINGS = {"model": {"d_model": 128}, "dtype": "float32", "training": {"lr": 1e-3, "seed": 0}}


@pytest.fixture(scope="module")
def read(run_records):
    findings = [SPIKE, SPIKE._replace(severity="error", steps=(5, 5))]
    return Page("my run", run_records(), settings=SETTINGS, findings=findings, parameters=1234)


def test_a_page_is_complete(read):
    assert read.texts("title") == read.texts("h1") == ["my run"]
    expected = ["Final figures", "Diagnosis", "Curves", "Samples", "Settings"]
    assert read.texts("h2") == expected
    assert read.texts("h3") == ["warning spike steps 3 to 9", "error spike step 5"]
    assert read.texts("pre") == ["sample of 10", "sample of 20", "sample of 30", "sample of 40"]
    assert {"d_model", "dtype", "lr"} <= set(read.texts("th"))
    assert {"128", "float32", "0.001"} <= set(read.texts("td"))
    assert "1,234" in read.texts("dd")
    assert "lower the rate" in read.texts("p")


@pytest.mark.parametrize(
    "text", [{"source": "Tiny Shakespeare from /data"}, {"text_file": "/a/Tiny Shakespeare"}]
)
def test_the_title_says_what_was_trained(text):
    settings = {**SETTINGS, "architecture": "llama", "given": {"seed": 0}, "text": text}
    titled = Page("my run", [{"step": 1}], settings=settings)
    assert titled.texts("title") == ["llama on Tiny Shakespeare, my run"]
    assert titled.texts("caption") == ["model", "training", "text", "other"]


def test_a_page_loads_nothing(read):
    assert not {"script", "link", "iframe", "object", "embed", "base", "svg"} & set(read.tags)
    pictures = read.references()
    assert len(set(pictures)) == 24  # a light and a dark one of each panel, two of the first
    for picture in pictures:
        ElementTree.fromstring(base64.b64decode(picture.removeprefix(DATA)))
    assert not re.search(r"@import|url\(", read.text)


def test_records_and_settings_never_become_markup():
    records = [{"step": 1, "loss": 4.0, "statistics": {"grad_norm": {EVIL: 1.0}}}]
    records += [{"step": 2, "loss": 4.0, "sample": EVIL, "fault": EVIL}]
    settings = {EVIL: {EVIL: EVIL}, "list": [EVIL, {"a": EVIL}], "n": None}
    finding = Finding(EVIL, EVIL, (1, 2), EVIL, EVIL)
    read = Page(EVIL, records, settings=settings, findings=[finding])
    assert "script" not in read.tags
    assert all(reference.startswith(DATA) for reference in read.references())
    for tag in ("pre", "h1", "h3", "p", "th", "td", "caption"):
        assert any("<script>alert('x')</script><img" in text for text in read.texts(tag))
        assert any("&amp; {{ x }}" in text for text in read.texts(tag))


@pytest.mark.parametrize(
    "records",
    [
        [{"step": 1, "loss": 4.0}],
        [{"step": 7}],
        [{"step": 1, "loss": None, "val_loss": None, "fault": "x", "sample": None}],
    ],
)
def test_a_poor_run_has_a_page(records):
    read = Page("run", records)
    missing, *others = read.texts("p")
    assert missing.startswith("Not recorded: validation loss, ")
    assert others == ["No samples were recorded.", "No settings were recorded."]
    assert "Diagnosis" not in read.texts("h2")


def test_of_many_samples_the_first_and_the_last_are_open():
    records = [{"step": step, "sample": "a text"} for step in range(1, 10)]
    read = Page("run", records, findings=[])
    assert read.texts("li") == ["Nothing found."]
    details = [one for one in read.elements if one.tag == "details"]
    assert [i for i, one in enumerate(details) if "open" in one.keys()] == [0, 6, 7, 8]  # noqa: SIM118
    assert len(details) == 9


def test_final_figures(run_records):
    records = run_records()
    records[19] |= {"val_loss": 0.5, "bits_per_byte": 0.7}
    records[30]["fault"] = "not finite"
    mean = sum(record["loss"] for record in records) / 40
    assert final_figures(records, {"training": {"steps": 100}}, 10) == [
        Figure("steps", "40", "of 100"),
        Figure("training loss", f"{mean:.4f}", "mean of the last 40 steps"),
        Figure("validation loss", f"{records[-1]['val_loss']:.4f}", "at step 40"),
        Figure("best validation loss", "0.5000", "at step 20"),
        Figure("best perplexity", "1.649"),
        Figure("best bits per byte", "0.7000"),
        Figure("parameters", "10"),
        Figure("tokens per second", "1,020", "median"),
        Figure("time", "0:01", "of all steps together"),
        Figure("updates skipped", "1", "the first at step 31"),
    ]
    whole = {"loss": 0.25, "bits_per_byte": 0.3, "step": 20, "tokens": 9}
    assert final_figures(records, {}, evaluation=whole)[4:7] == [
        Figure("validation loss on all held-out text", "0.2500"),
        Figure("best perplexity", "1.284"),
        Figure("best bits per byte", "0.3000"),
    ]
    assert len(final_figures(records, {}, evaluation={**whole, "step": 40})) == 9
    assert final_figures([{"step": 3}], {"training": None}) == [Figure("steps", "3")]


def test_without_jinja_it_says_what_to_install(run_records, monkeypatch):
    monkeypatch.setitem(sys.modules, "jinja2", None)
    with pytest.raises(ImportError, match=r"Jinja2: pip install 'functional-lm\[plot\]'"):
        page("run", run_records())
