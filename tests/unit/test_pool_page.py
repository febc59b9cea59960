"""The page of an audit in which every model is the target in turn: whole, honest about what it cannot certify, escaped."""

from __future__ import annotations

import copy
import json
import re
from dataclasses import dataclass
from html import unescape
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from pages import Tags

from memleak import artefacts
from memleak.report import page, pool, pool_figures, published
from memleak.report import stage as report

FIGURES = ("headline", "roc", "scores", "exposure", "training")


@dataclass(frozen=True)
class Reported:
    """A measured audit, its figures and its page."""

    walk: Any
    folder: Path
    data: Path | None
    line: str

    @property
    def metrics(self) -> dict[str, Any]:
        return self.walk.metrics

    @property
    def html(self) -> str:
        return (self.folder / "report.html").read_text(encoding="utf-8")

    def page(self, metrics: dict[str, Any]) -> tuple[str, str]:
        """The page of other metrics, without figures."""
        timings = pd.DataFrame({"stage": ["train"], "seconds": [1.0]})
        return page.pool_page(metrics, timings, {}, json.loads(self.walk.planned.page_json()))


def _draw(walk: Any, name: str, folder: Path, data: Path | None) -> Path:
    svg = folder / f"{name}.svg"
    report.figure(
        name, walk.plan, [], [], walk / "metrics/small.json", walk.audit("roc.parquet"), svg, svg.with_suffix(".png"),
        score_paths=walk.scores, exposure_path=walk.audit("exposure.parquet"), data_path=data,
    )  # fmt: skip
    return svg


def _reported(walk: Any, folder: Path, data: Path | None) -> Reported:
    figures = [_draw(walk, name, folder, data) for name in FIGURES]
    report.timings(folder / "logs/benchmarks", walk.planned.names_of_models(), "small", folder / "timings.csv")
    inputs = (walk / "metrics/small.json", walk.plan, walk.audit("decisions.parquet"), folder / "timings.csv", figures)
    line = report.report(*inputs, json.loads(walk.planned.page_json()), folder / "report.html")
    return Reported(walk, folder, data, line)


@pytest.fixture(scope="module")
def halves(pool_walk, tmp_path_factory, digits_path):
    """Records may be shown."""
    return _reported(pool_walk, tmp_path_factory.mktemp("halves"), digits_path)


@pytest.fixture(scope="module")
def canaries(coins, tmp_path_factory):
    return _reported(coins, tmp_path_factory.mktemp("canaries"), None)


@pytest.fixture(params=["halves", "canaries"])
def reported(request):
    return request.getfixturevalue(request.param)


@pytest.fixture
def too_few(halves):
    """Metrics as those of fewer than four pairs: no mock targets, and nothing that takes them."""
    found = copy.deepcopy(halves.metrics)
    for attack in found["attacks"].values():
        attack |= {"calibrated": [], "halves_of_references": None}
    return found | {"controls": {"null": None, "count": None}, "exposure": None, "usage": None}


def _text(html: str) -> str:
    """The page's words without tags, spaces made one."""
    words = re.sub(r"<[^>]+>", " ", re.sub(r"<(svg|style).*?</\1>", " ", html, flags=re.DOTALL))
    return re.sub(r"\s+", " ", unescape(words))


def test_the_page_is_whole_in_one_file(reported):
    assert reported.html.count('<div class="panels"') == len(FIGURES) == 5
    assert "<script" not in reported.html and "@import" not in reported.html
    assert not re.findall(r'(?:src|href)="(?:https?:)?//', reported.html)
    assert Tags(reported.html).open == []


def test_every_figure_is_drawn_twice_and_named_for_those_who_cannot_see_it(reported):
    for name in FIGURES:
        assert (reported.folder / f"{name}.svg").read_text().startswith("<?xml")
        assert (reported.folder / f"{name}.png").read_bytes().startswith(b"\x89PNG")
        assert name == "headline" or re.search(f'role="(img|group)" aria-label="figure {name}"', reported.html)


def test_the_same_numbers_draw_the_same_bytes(halves, tmp_path):
    for name in ("headline", "roc", "scores", "exposure"):
        assert _draw(halves.walk, name, tmp_path, halves.data).read_bytes() == (halves.folder / f"{name}.svg").read_bytes()


def test_a_figure_that_the_design_does_not_have_is_refused(halves, tmp_path):
    with pytest.raises(
        ValueError, match="no figure is called overview in an audit of kind halves; expected headline, roc, scores, exposure or training"
    ):
        _draw(halves.walk, "overview", tmp_path, None)


def test_every_figure_says_how_to_read_it(halves):
    captions = re.findall(r"<figcaption>(.*?)</figcaption>", halves.html, re.DOTALL)

    assert len(captions) == 5 and all(caption.strip().startswith("How to read") for caption in captions)


def test_every_attack_has_a_row_with_intervals_and_counts(halves):
    found = halves.metrics
    for heading, n_before, rates in (("<p>4 attacks", 6, (0.01, 0.001)), ("All false-positive rates", 1, None)):
        table = halves.html[halves.html.index(heading) :]
        rows = dict(re.findall(r"<tr>(<td>([a-z-]+)(?:<br>.*?)?</td>.*?)</tr>", table[: table.index("</table>")], re.DOTALL))
        rows = {name: row for row, name in rows.items()}
        assert set(rows) == set(found["attacks"])
        for name, row in rows.items():
            cells = re.findall(r"<td[^>]*>(.*?)</td>", row, re.DOTALL)
            told = [rate for rate in found["attacks"][name]["rates"] if rates is None or rate["at_fpr"] in rates]
            assert len(cells) == n_before + len(told) and all(re.search(r"\[[\d.]+, [\d.]+\]", cell) for cell in cells[-len(told) :])
            assert all(f"{rate['n_false_positives']:,} FP" in cell for cell, rate in zip(cells[-len(told) :], told, strict=True))


def test_what_cannot_be_certified_is_grey_and_says_so(halves):
    """150 records certify an FPR of 2 % and more (3 / n), not one of 1 %."""
    headline = next(row for row in pool.attack_rows(halves.metrics) if row["is_headline"])
    table = halves.html[halves.html.index("All false-positive rates") :]
    cells = re.findall(r"<td( class=\"no\")?>(?:(?!</td>).)* FP(, cannot certify)?</span></td>", table)[: len(headline["rates"])]

    assert [rate["certified"] for rate in headline["rates"]] == [True, False, False, False, False]
    assert [bool(grey) for grey, _ in cells] == [bool(said) for _, said in cells] == [False, True, True, True, True]
    assert "Rates from 2.0 % on can be certified" in _text(halves.html)


def test_an_alpha_that_cannot_be_certified_is_said_so(halves):
    html, _ = halves.page(halves.metrics | {"alpha": 0.01})

    assert "With 150 distinct records a false-positive rate of 1 % cannot be certified; that takes 300." in _text(html)


def test_optimistic_figures_are_called_so(halves):
    text = _text(halves.html)

    for words in ("balanced accuracy, optimistic", "advantage TPR - FPR, optimistic", "optimistic TPR (in-sample)"):
        assert words in text


def test_mixed_devices_and_engines_are_told(halves):
    made = [
        {"n": 8, "device": "NVIDIA H100", "torch": "2.9.0", "engine": "ensemble"},
        {"n": 4, "device": "cpu", "torch": "2.8.0", "engine": "sequential"},
    ]
    models = halves.metrics["models"] | {"trained_on": made, "mixed": ["devices", "torch versions"]}

    html, _ = halves.page(halves.metrics | {"models": models})

    assert (
        "Models of several devices and torch versions are mixed (8 models on NVIDIA H100 with torch 2.9.0; 4 models on cpu with torch 2.8.0)" in html
    )
    assert "Trained: 8 models on NVIDIA H100 (torch 2.9.0, ensemble), 4 models on cpu (torch 2.8.0, sequential)." in html
    assert re.search(r"Trained: \d+ models on cpu", halves.html) and "are mixed" not in halves.html


def test_halves_print_no_epsilon_and_why(halves):
    text = _text(halves.html)

    assert halves.metrics["epsilon"] is None
    assert "No epsilon: design." in text and "complementary halves are neither" in text


def test_canaries_print_epsilon_with_all_that_was_declared(canaries):
    found, text = canaries.metrics["epsilon"], _text(canaries.html)

    assert f"epsilon is at least {found['epsilon']:.2f} at delta {found['delta']}, with 95.0 % confidence" in text
    assert found["strategy"] in text and "of 4 trainings' bounds" in text and "guesses about" in text
    fit = canaries.metrics | {"models": canaries.metrics["models"] | {"test_accuracy": {"value": 0.95, "low": 0.9, "high": 1.0}}}
    assert f"epsilon is at least {found['epsilon']:.2f}" in canaries.page(fit)[1]


def test_too_few_models_are_told_what_it_takes(halves, too_few):
    html, line = halves.page(too_few)

    assert "UNDECIDED" in line and "takes 8 models or more" in line
    assert _text(html).count("too few models for mock targets") == 3 and Tags(html).open == []


def test_an_exposure_that_was_not_measured_is_drawn_as_a_sentence(halves):
    empty = artefacts.read_table(halves.walk.audit("exposure.parquet"), report.EXPOSED).iloc[:0]

    figure = pool_figures.exposure(empty, None, (), 0.01)

    assert [text.get_text() for text in figure.axes[0].texts] == ["Too few models for mock targets: no thresholds, no exposure."]


def test_records_are_shown_only_on_request(halves, canaries):
    assert "<image " in (halves.folder / "exposure.svg").read_text()
    assert "<image " not in (canaries.folder / "exposure.svg").read_text()
    assert "The pictures: the most exposed records" in _text(halves.html) and "The pictures: the most exposed" not in _text(canaries.html)


def test_data_that_are_no_images_have_no_pictures(halves, tmp_path):
    artefacts.write_array(tmp_path / "inputs.npy", np.zeros((300, 5), dtype=np.float32))

    assert report._pictures(tmp_path / "dataset.json", np.array([0, 1])) is None


def test_the_picture_is_that_of_the_record(halves):
    exposed = artefacts.read_table(halves.walk.audit("exposure.parquet"), ["source_id"])["source_id"].to_numpy()
    inputs = artefacts.read_array(halves.data.parent / "inputs.npy")

    shown = report._pictures(halves.data, exposed[:3])

    assert np.allclose(shown * 16, inputs[exposed[:3]])


def test_the_most_exposed_are_listed_with_counts_and_flags(halves):
    found = halves.metrics
    listed = re.findall(r"<tr><td>(\d+)</td><td>\d+</td><td>\d</td><td>(\d+) of (\d+)</td>", halves.html)

    most = [row for row in found["exposure"]["most"] if row["n_detected"]]
    assert [(int(a), int(b), int(c)) for a, b, c in listed] == [(row["sample_id"], row["n_detected"], row["n_holding"]) for row in most]
    assert halves.html.count('<td class="exposed">exposed</td>') == sum(row["bh"] for row in most)


def test_hostile_names_are_text(halves):
    found = copy.deepcopy(halves.metrics)
    found["data"] |= {"name": "<script>alert(1)</script>", "licence": '"><img src=x onerror=alert(1)>', "class_names": ["<b>zero</b>"] * 10}

    html, _ = halves.page(found)

    assert "<script" not in html and "<img" not in html and "<b>zero" not in html
    assert "&lt;script&gt;" in html


def test_an_alarm_of_the_null_is_shouted(halves):
    found = copy.deepcopy(halves.metrics)
    found["controls"]["null"] |= {"p": 1e-9, "alarm": True}

    html, line = halves.page(found)

    assert "UNDECIDED" in line and "A control of the audit failed" in line
    assert "ALARM: scores know" in _text(html) and "Find what gives the answer away" in _text(html) and "differential privacy" not in _text(html)


def test_an_audit_without_neighbours_in_the_literature_has_no_table_of_published_figures(halves):
    assert "Beside published figures" not in halves.html


def test_published_figures_name_every_difference_and_are_no_reproduction(halves):
    found = copy.deepcopy(halves.metrics)
    found["data"]["name"] = "cifar10"

    text = _text(halves.page(found)[0])

    assert "Not a reproduction." in text
    for what in ("images", "architecture", "models", "queries", "epochs", "accuracy"):
        assert re.search(rf"{what}: here [^ ].*?, there [^ ]", text), what
    assert "ResNet-18" in text and "mlp" in text and "10.3 % ± 0.6" in text and "this audit" in text


def test_nothing_is_shown_of_a_data_set_whose_figures_nobody_checked(halves):
    found = copy.deepcopy(halves.metrics)
    found["data"]["name"] = "cifar100"

    text = _text(halves.page(found)[0])

    assert published.FIGURES["cifar100"] == () and "none was checked again in its source, so none is shown" in text


def test_a_users_folder_is_named_as_a_difference():
    found = {"models": {"n": 4, "n_train": 10, "train_accuracy": {"value": 1.0}, "test_accuracy": {"value": 0.5}}, "n_samples": 20}
    found |= {"headline": "lira", "attacks": {"lira": {"n_references": 2}}}
    shown = {
        "recipe": {"architecture": "mlp", "epochs": 3, "flip": True},
        "entry": {"views": ["identity", "shift-1"]},
        "dataset": {"source": "jpeg/"},
    }

    own = published.own_setup(found, shown)

    assert own["images"].startswith("from a folder of the user, as encoded there")
    assert own["queries"] == "9" and own["epochs"] == "3, with flip"


def test_the_index_has_rows_of_all_kinds(halves, canaries):
    html = page.index_page([halves.metrics, canaries.metrics])

    assert html.count('href="audits/small/report.html"') == 4, "of each the name and the link to its page"
    assert "design halves" in html and "design canaries" in html


def test_twelve_attacks_have_twelve_different_lines():
    styles = pool_figures._styles([f"attack{i:02d}" for i in range(12)])

    assert len({(style["color"], style["ls"]) for style in styles.values()}) == 12


def test_the_legend_goes_by_auc_and_names_the_headline():
    fpr = np.geomspace(0.001, 1, 20)
    curves = pd.concat(
        [
            pd.DataFrame({"subject": name, "fpr": fpr, "tpr": fpr**power, "low": fpr, "high": 1.0, "certified": fpr > 0.01})
            for name, power in (("a", 0.9), ("b", 0.5))
        ]
    )

    figure = pool_figures.roc(curves, {"a": 0.55, "b": 0.7}, "a")

    texts = figure.legends[0].get_texts()
    assert [text.get_text() for text in texts] == ["b: AUC 0.700", "a: AUC 0.550"]
    assert [text.get_fontweight() for text in texts] == ["normal", "bold"]


@pytest.mark.parametrize(
    ("value", "words"), [(0.0, "0 %"), (1.0, "100 %"), (0.123, "12.3 %"), (0.05, "5.0 %"), (0.00123, "0.12 %"), (0.000012, "0.0012 %"), (None, "n/a")]
)
def test_small_rates_keep_their_digits(value, words):
    assert pool.share(value) == words
