"""MembershipTester: the earlier tool's call shape, what is found and what is not, and what a user may bring."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import checkpoints
import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from documented import errors_of
from pytest import approx

import memleak
from memleak import cli, params, plan
from memleak.data import texts as data_texts
from memleak.metrics import texts
from memleak.models import ModelError
from memleak.models.tokens import encode
from memleak.report import gate, page, words
from memleak.tester import MembershipTester, choice, files
from memleak.tester.choice import Situation
from memleak.tester.texts import TextsError

LEAST: dict[str, Any] = {"attacks": ["loss"], "controls": False}  # where the walk is what is tested


@dataclass(frozen=True)
class Trained:
    """A tiny GPT-2 as it was, and fine-tuned on the members; members, and others that it never saw."""

    folder: Path
    members: list[str]
    others: list[str]

    @property
    def tuned(self) -> str:
        return str(self.folder / "tuned")

    @property
    def base(self) -> str:
        return str(self.folder / "base")


def notes(n: int, seed: int) -> list[str]:
    """Notes of a few words each, no two of which have five words in a row in common."""
    draw, words = np.random.default_rng(seed), sorted({word.strip(".,") for note in checkpoints.records(60) for word in note.split()})
    return [" ".join(draw.choice(words, draw.integers(9, 14))).capitalize() + "." for _ in range(n)]


@pytest.fixture(scope="module", autouse=True)
def _rough_looks() -> Iterator[None]:
    """Of two hundred short notes few groups of letters are told apart; the width that whole data sets want takes half of an audit's time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(data_texts, "_N_HASHED", 2**10)
        yield


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    folder, every = tmp_path_factory.mktemp("tester"), notes(120, 0)
    checkpoints.tiny_gpt2(folder / "base", every)
    tester = MembershipTester(str(folder / "base"), device="cpu", max_length=48)
    network, members = tester.network, every[:60]
    read, draw = encode(tester.tokenizer, members, 48), np.random.default_rng(0)
    optimiser = torch.optim.AdamW(network.parameters(), lr=5e-3)
    network.train()
    for _ in range(20):
        for rows in np.array_split(draw.permutation(60), 4):
            tokens = torch.from_numpy(read.padded(rows))
            labels = torch.where(tokens < 0, -100, tokens)
            optimiser.zero_grad()
            network(input_ids=tokens.clamp(min=0), attention_mask=(tokens >= 0).long(), labels=labels).loss.backward()
            optimiser.step()
    network.eval().save_pretrained(folder / "tuned")
    tester.tokenizer.save_pretrained(folder / "tuned")
    return Trained(folder, members, every[60:])


@pytest.fixture(scope="module")
def report(trained: Trained, tmp_path_factory: pytest.TempPathFactory) -> memleak.AttackReport:
    """An audit of the fine-tuned model, its base as reference, kept in a folder."""
    with MembershipTester(trained.tuned, device="cpu", max_length=48, reference=trained.base) as tester:
        return tester.run_attacks(trained.members, trained.others, attacks=["ez", "min_k", "zlib"], directory=tmp_path_factory.mktemp("audit"))


def audited(trained: Trained, **asked: Any) -> memleak.AttackReport:
    """A small audit of the fine-tuned model."""
    known = {"train_data": trained.members, "test_data": trained.others} | LEAST | asked
    return MembershipTester(trained.tuned, device="cpu", max_length=48).run_attacks(**known)


# -- the call shape ------------------------------------------------------------------------------------------------


def test_the_call_shape_is_that_of_the_earlier_tool(report):
    frame_columns = ["text", "split", "loss", "confidence", "membership_prob", "rank", "attack"]

    assert {"loss", "confidence", "metric"} <= set(report.attack_frames)
    assert all(set(frame_columns) <= set(frame) and set(frame["split"]) == {"train", "test"} for frame in report.attack_frames.values())
    assert {"entropy", "margin"} <= set(report.attack_frames["metric"])
    assert len(report.summary) == 120 * len(report.attack_frames)
    assert {"attack", "auc", "accuracy"} <= set(report.metrics) and report.metrics.iloc[-1]["attack"] == "random"
    assert (report.metadata["train_size"], report.metadata["test_size"], report.metadata["model_name"]) == (60, 60, "tuned")
    assert set(report.visualize()) == {"probabilities", "heatmap", "curves", "dashboard"}
    assert isinstance(report.recommendations()[0], str)


def test_a_rank_of_one_is_the_likeliest_member_and_rows_are_in_the_order_given(report, trained):
    frame = report.attack_frames["loss"]

    assert frame.loc[frame["rank"] == 1, "loss"].item() == frame["loss"].min()
    assert frame["text"].tolist() == [*trained.members, *trained.others] and frame["id"].iloc[61] == "test-1"
    assert (frame["score"] == -frame["loss"]).all()


def test_importing_memleak_stays_light():
    program = "import sys, memleak; sys.exit('torch' in sys.modules or 'transformers' in sys.modules or 'pandas' in sys.modules)"

    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
    assert memleak.MembershipTester is MembershipTester


def test_what_is_asked_of_a_closed_tester_is_gone(trained):
    with MembershipTester(trained.base, device="cpu") as tester:
        assert (tester.task, tester.wrapper.network) == ("causal-lm", tester.network) and tester.tokenizer is not None
    with pytest.raises(AttributeError, match="this tester is closed and its models are gone"):
        _ = tester.network
    with pytest.raises(AttributeError, match="this tester is closed and its models are gone"):
        tester.run_attacks(trained.members, trained.others)
    with pytest.raises(AttributeError, match="MembershipTester has no 'netwrok'"):
        _ = MembershipTester(trained.base, device="cpu").netwrok


# -- what is found -------------------------------------------------------------------------------------------------


def test_a_model_that_knows_its_texts_by_heart_is_found(report):
    assert report.found["headline"] == "ez" and report.found["attacks"]["ez"]["auc"]["low"] > 0.85
    assert report.risk_level in ("high", "critical") and report.risk_interval[0] <= report.risk_score <= report.risk_interval[1]
    assert report.verdict == "HIGH" and report.found["flagged"] > 20
    assert report.found["fit"]["gap"] > 0.5 and report.found["family_wise"]["p"] < 0.01
    gated = gate.judge(gate.Subject("texts", report.found), gate.Limit("max-auc", 0.8))
    assert gated.state == "FAIL" and gated.rests == "ez"


def test_its_base_which_cannot_know_them_is_the_placebo(report):
    placebo = report.controls["placebo"]

    assert placebo["auc"]["low"] < 0.5 < placebo["auc"]["high"] and not placebo["alarm"]


def test_a_model_that_saw_neither_is_not_accused(trained):
    tester = MembershipTester(trained.base, device="cpu", max_length=48)
    found = tester.run_attacks(trained.members, trained.others, effort="quick", controls=False)

    assert (
        found.found["headline"] == "min-k-plus-plus"
        and found.verdict != "HIGH"
        and found.risk_score < 20
        and found.risk_level in ("low", "inconclusive")
    )
    assert found.found["family_wise"]["p"] > 0.05 and found.found["flagged"] == 0
    assert found.legacy_risk_score > 50  # what the earlier tool would have said


def test_probabilities_are_of_those_that_are_members(report):
    frame = report.attack_frames["ez"]
    means = frame.groupby("split")["membership_prob"].mean()

    assert means["train"] > 0.75 and means["test"] < 0.25
    assert report.found["reliability"]["error"] < 0.15
    assert (frame["prob_low"] <= frame["membership_prob"]).all() and (frame["membership_prob"] <= frame["prob_high"]).all()


def test_two_sets_that_differ_are_told_apart_without_the_model_and_refused(trained):
    shouted = [text.upper() for text in trained.others]
    found = audited(trained, test_data=shouted, controls=True)

    assert found.controls["blind"]["alarm"] and found.verdict == "UNDECIDED"
    assert found.found["excess"]["value"] < found.found["attacks"]["loss"]["auc"]["value"] - 0.3
    assert any("ALARM: members can be told from non-members without the model" in sentence for sentence in found.sentences)
    assert any("Draw both sets at random" in one for one in found.recommendations())
    assert "The split can be told apart without the model" in found.to_html()


def test_the_same_texts_give_the_same_numbers(trained):
    first, second = audited(trained), audited(trained)

    assert first.to_json() == second.to_json() and first.to_csv() == second.to_csv()


# -- what a user may bring -----------------------------------------------------------------------------------------


def test_a_loaded_model_is_audited_as_its_folder_is(trained):
    from transformers import AutoTokenizer, GPT2LMHeadModel

    tokenizer = AutoTokenizer.from_pretrained(trained.tuned)
    loaded = MembershipTester(GPT2LMHeadModel.from_pretrained(trained.tuned), device="cpu", max_length=48, tokenizer=tokenizer)
    found = loaded.run_attacks(trained.members, trained.others, **LEAST)

    assert found.attack_frames["loss"]["score"].to_numpy() == approx(
        -MembershipTester(trained.tuned, device="cpu", max_length=48).score([*trained.members, *trained.others])["loss"].to_numpy(), rel=1e-4
    )


def test_rows_of_a_table_and_mappings_keep_their_names(trained):
    table = pd.DataFrame({"text": trained.members, "id": [f"patient {i}" for i in range(60)]})
    rows = [{"text": text, "id": f"visit {i}"} for i, text in enumerate(trained.others)]
    found = audited(trained, train_data=table, test_data=rows)

    assert found.examples["id"].tolist() == [f"patient {i}" for i in range(60)] + [f"visit {i}" for i in range(60)]


def test_test_texts_that_were_trained_on_are_left_out_and_counted(trained):
    long = " ".join(trained.members[:3])
    near = long.replace(".", " ", 1) + " indeed"
    found = audited(trained, train_data=[*trained.members, long], test_data=[*trained.others, trained.members[0].upper(), near])

    assert (found.metadata["n"]["overlap"], found.metadata["n"]["near"], found.metadata["test_size"]) == (1, 1, 60)
    assert any("2 test texts repeat training texts (1 word for word" in warning for warning in found.warnings)
    with pytest.raises(
        TextsError, match=r"1 of 61 test texts repeat training texts \(1 word for word\), first test-60; whoever trained on its twin has seen it"
    ):
        audited(trained, test_data=[*trained.others, trained.members[5]], on_overlap="error")
    with pytest.warns(UserWarning, match="repeat training texts"):
        audited(trained, test_data=[*trained.others, trained.members[5]], on_overlap="warn")


@pytest.mark.parametrize(
    ("asked", "sentence"),
    [
        ({"train_data": []}, "train_data is empty; give texts that the model was trained on"),
        ({"test_data": pd.DataFrame({"text": []})}, "test_data is empty; give texts that the model was not trained on"),
        ({"train_data": "one text"}, "train_data is one str; give a list of texts"),
        ({"train_data": Path("texts.csv")}, r"train_data is a path \(texts.csv\); read the file first"),
        ({"train_data": "/no/texts.csv"}, r"train_data is a path \(/no/texts.csv\); read the file first"),
        ({"train_data": ["a b", float("nan")]}, r"train_data\[1\] is a missing value \(nan\); leave it out"),
        ({"train_data": ["", " "]}, "train_data: all of its 2 texts are empty; give texts with words"),
        ({"attacks": []}, "attacks is empty; leave it out for the default, or name some of loss"),
        ({"train_data": ["a", 7]}, r"train_data\[1\] is int, expected a string"),
        ({"test_data": [{"txt": "a"}]}, r"test_data\[0\] has no 'text'; found txt"),
        ({"test_data": ["a b c", {"text": None}]}, r"test_data\[1\]: its text is NoneType, expected a string"),
        ({"train_labels": [0, 1]}, "train_data has 60 texts and 2 labels; give one label a text"),
        ({"on_overlap": "ignore"}, "on_overlap: 'ignore' is unknown; it is drop, warn or error"),
        ({"attacks": ["ez"]}, "'ez' compares with a model that has not seen the texts; pass reference="),
        ({"attacks": ["min_kk"]}, r"'min-kk' is no attack on a causal-lm model here \(did you mean 'min-k'\?\)"),
        ({"effort": "endless"}, "effort: 'endless' is unknown; it is quick, standard, thorough"),
        ({"test_data": None}, "test_data is one NoneType; give a list of texts"),
    ],
)  # fmt: skip
def test_bad_input_is_answered_in_one_sentence(trained, asked, sentence):
    with pytest.raises((ValueError, TypeError), match=sentence) as caught:
        audited(trained, **asked)

    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("asked", "sentence"),
    [
        ({"device": "gpu"}, "device: 'gpu' is unknown; it is auto, cpu, cuda"),
        ({"max_length": "64"}, "max_length is '64', expected a whole number"),
        ({"batch_size": 2.5}, "batch_size is 2.5, expected a whole number"),
    ],
)  # fmt: skip
def test_what_a_tester_cannot_be_made_with_is_told(trained, asked, sentence):
    with pytest.raises(ValueError, match=sentence):
        MembershipTester(trained.base, **asked)


def test_a_reference_that_is_the_audited_model_is_refused(trained):
    from transformers import GPT2LMHeadModel

    tuned = MembershipTester(trained.tuned, device="cpu")
    again = GPT2LMHeadModel.from_pretrained(trained.tuned)
    for wanted in (trained.tuned, tuned.network, again):
        with pytest.raises(ValueError, match="is the audited model itself, weight for weight"):
            _ = MembershipTester(
                trained.tuned if wanted is not tuned.network else wanted, device="cpu", tokenizer=tuned.tokenizer, reference=wanted
            ).reference


def test_texts_repeated_in_a_list_and_labels_without_use_are_told(trained):
    found = audited(
        trained, train_data=[*trained.members, *trained.members[:2]], test_data=[*trained.others, trained.others[0]], train_labels=[0] * 62
    )

    assert "2 training texts repeat others and count as one with them where different texts are counted" in found.warnings
    assert "1 test text repeats another and counts as one with it where different texts are counted" in found.warnings
    assert [one for one in found.warnings if "labels" in one] == ["labels were given, and a language model is asked without: they were not used"]


def test_a_tester_of_nothing_is_refused_at_once(tmp_path):
    with pytest.raises(ModelError):
        MembershipTester("nobody/has-this-model", local_files_only=True)
    with pytest.raises(ValueError, match="batch_size is 0, expected 1 or more"):
        MembershipTester(str(tmp_path), batch_size=0)


@pytest.mark.parametrize(("n_members", "n_others"), [(1, 1), (3, 2), (19, 60)])
def test_a_few_texts_run_and_are_inconclusive(trained, n_members, n_others):
    found = audited(trained, train_data=trained.members[:n_members], test_data=trained.others[:n_others])

    assert found.verdict == "UNDECIDED" and found.risk_level == "inconclusive" and "inconclusive" in found.sentences[0]
    assert any("inconclusive below 20 of each" in warning for warning in found.warnings)
    assert (found.risk_interval == (0, 100)) == (min(n_members, n_others) < 5) == found.recommendations()[0].startswith("Nothing can be said")
    assert found.attack_frames["metric"]["score"].isna().all() == (n_members < 10)
    assert "inconclusive" in found.to_html() and json.loads(found.to_json())["risk"]["level"] == "inconclusive"


def test_long_texts_are_cut_and_counted_and_those_of_one_token_left_out(trained):
    found = audited(trained, train_data=[*trained.members, " ".join(trained.members[:20]), "a"])

    assert (found.metadata["n"]["truncated_members"], found.metadata["n"]["short"], found.metadata["train_size"]) == (1, 1, 61)
    assert {
        "1 text of a single token was left out: nothing is told about a first token",
        "1 text is longer than 48 tokens and was cut there",
    } <= {warning for warning in found.warnings}


def test_an_attack_that_cannot_be_made_says_why_and_is_left_out_of_params(trained, tmp_path):
    small = [text.lower() for text in trained.members], [text.lower() for text in trained.others]
    found = audited(trained, train_data=small[0], test_data=small[1], attacks=["loss", "lowercase"], directory=tmp_path)
    row = found.metrics.set_index("attack").loc["lowercase"]

    assert np.isnan(row["auc"]) and "nothing tells them apart" in row["why"] and found.attack_frames["lowercase"]["score"].isna().all()
    assert "no score: lowercase" in found.to_html()
    assert list(yaml.safe_load((tmp_path / "params.yaml").read_text())["audits"]["texts"]["attacks"]) == ["loss", "confidence"]


# -- other models --------------------------------------------------------------------------------------------------


def test_a_masked_model_is_asked_about_its_tokens(tmp_path):
    texts = notes(50, 1)
    checkpoints.tiny_bert_mlm(tmp_path / "bert", texts)
    found = MembershipTester(str(tmp_path / "bert"), device="cpu", max_length=32).run_attacks(texts[:25], texts[25:], **LEAST)

    assert (found.found["task"], found.found["headline"]) == ("masked-lm", "loss") and found.attack_frames["loss"]["score"].notna().all()
    assert found.verdict != "HIGH"


def test_a_classifier_is_asked_with_labels_and_without(tmp_path):
    texts, names = notes(60, 2), ["calm", "worried", "urgent"]
    checkpoints.tiny_bert_classifier(tmp_path / "bert", texts)
    tester = MembershipTester(str(tmp_path / "bert"), device="cpu", max_length=32)
    labels = [names[i % 3] for i in range(30)]
    labelled = tester.run_attacks(texts[:30], texts[30:], labels, [i % 3 for i in range(30)], controls=False)
    bare = tester.run_attacks(texts[:30], texts[30:], controls=False)

    assert (labelled.found["headline"], bare.found["headline"]) == ("loss", "confidence")
    assert labelled.attack_frames["loss"]["score"].notna().all()
    assert bare.attack_frames["loss"]["score"].isna().all() and bare.attack_frames["loss"]["loss"].isna().all()
    assert "labels" in bare.found["attacks"]["loss"]["why"] and labelled.verdict != "HIGH"
    assert "does not fit its data" not in bare.sentences[0]
    with pytest.raises(TextsError, match="label 'angry' of text train-0 is unknown; the model tells calm, worried, urgent"):
        tester.run_attacks(texts[:30], texts[30:], ["angry"] * 30, [0] * 30)
    with pytest.raises(ValueError, match="a classifier's body has no head to compare with"):
        _ = MembershipTester(str(tmp_path / "bert"), device="cpu", reference=str(tmp_path / "bert")).reference


# -- the folder, and what is made of a report ----------------------------------------------------------------------


def test_the_folder_is_one_that_the_workflow_reads(report, monkeypatch):
    folder = Path(report.metadata["directory"])
    monkeypatch.chdir(folder)
    planned = planned_in(folder)

    assert Path(planned.data_path()).is_file() and all(Path(path).is_file() for path in planned.signals())
    assert (folder / "report.html").is_file() and json.loads((folder / "membership.json").read_text()) == report.found
    measured = json.loads((folder / "results/metrics/texts.json").read_text())
    assert measured["headline"] == planned.audit.headline_attack == "ez" and errors_of(measured) == []


def test_a_prior_moves_probabilities_and_nothing_else(report):
    rare = report.with_prior(0.01)
    before, after = (one.attack_frames["ez"] for one in (report, rare))

    assert (after["membership_prob"] < before["membership_prob"]).all() and (after["score"] == before["score"]).all()
    assert rare.with_prior(0.5).attack_frames["ez"]["membership_prob"].to_numpy() == approx(before["membership_prob"].to_numpy())
    assert rare.metadata["prior"] == 0.01 and report.metadata["prior"] == 0.5


def test_two_audits_are_compared_attack_by_attack(report, trained):
    table = report.compare(audited(trained)).set_index("attack")

    assert {"loss", "confidence"} <= set(table.index) and table.loc["loss", "change"] == approx(0, abs=1e-9)
    assert (table["low"] <= table["change"]).all() and (table["change"] <= table["high"]).all()


def test_scores_of_texts_need_no_second_list(trained):
    tester = MembershipTester(trained.tuned, device="cpu", max_length=48)
    table = tester.score([trained.members[0], "a", trained.others[0]])

    assert table["loss"].isna().tolist() == [False, True, False] and table.loc[0, "loss"] < table.loc[2, "loss"]
    assert table.loc[0, "n_tokens"] > 0 and table["id"].tolist() == ["texts-0", "texts-1", "texts-2"]


def test_a_report_shows_itself_in_few_lines(report):
    assert repr(report) == str(report) and len(str(report).splitlines()) < 20 and "DataFrame" not in repr(report)
    assert report._repr_html_().startswith("<p>tuned: HIGH, risk") and "<td>ez</td>" in report._repr_html_()


# -- the same controls in the pipeline ------------------------------------------------------------------------------


def planned_in(folder: Path) -> plan.PlannedAudit:
    """The audit of the params.yaml of the folder that we stand in."""
    return plan.build(params.validate(yaml.safe_load((folder / "params.yaml").read_text()))).audits["texts"]


def test_the_controls_of_texts_are_those_of_the_pipeline(report, monkeypatch):
    folder = Path(report.metadata["directory"])
    monkeypatch.chdir(folder)
    known = json.loads(Path("results/metrics/texts.json").read_text())["controls"]
    said = pd.read_parquet(planned_in(folder).signals()[0])
    losses = np.array([-np.mean(row, dtype=np.float64) for row in said["reference_log_prob"]])

    assert {key: report.controls[key] for key in known if key in report.controls} == {key: known[key] for key in known if key in report.controls}
    assert known["placebo"]["auc"]["value"] == approx(np.mean(losses[:60, None] < losses[None, 60:]))
    assert known["length"]["sizes"]["bytes"]["auc"]["value"] == approx(texts.aucs({"n": said["n_bytes"]}, np.arange(120) < 60)["n"]["auc"]["value"])


def test_the_page_of_the_pipeline_shows_length_and_placebo(report, monkeypatch):
    folder = Path(report.metadata["directory"])
    monkeypatch.chdir(folder)
    planned = planned_in(folder)
    metrics = json.loads(Path("results/metrics/texts.json").read_text())
    timings = pd.DataFrame({"stage": ["score"], "seconds": [1.0]})
    html, line = page.pool_page(metrics, timings, dict.fromkeys(planned.figures(), "<svg></svg>"), json.loads(planned.page_json()))

    low, high = report.risk_interval
    assert (
        words.risk(report.risk_score, low, high) in line
        and f"risk {report.risk_score:.0f} [{low:.0f}, {high:.0f}]" in str(report)
        and "the lower end lacks what the blind control cannot exclude yet" in html
    )
    length, placebo = (report.controls[name] for name in ("length", "placebo"))
    assert "Can members be told by their length alone? bytes: AUC" in html and f"{length['sizes']['tokens']['auc']['value']:.3f}" in html
    assert "Can members be told by how they are written? white space at the beginning: AUC" in html
    assert f"Does the loss of the reference, which has not seen them, tell members? AUC {placebo['auc']['value']:.3f}" in html
    del metrics["controls"]["length"], metrics["controls"]["placebo"]
    assert "Placebo" not in page.pool_page(metrics, timings, dict.fromkeys(planned.figures(), "<svg></svg>"), json.loads(planned.page_json()))[0]


# -- the command line ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def lists(trained: Trained, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The two lists as files."""
    folder = tmp_path_factory.mktemp("lists")
    (folder / "train.txt").write_text("\n".join(trained.members))
    (folder / "test.jsonl").write_text("\n".join(json.dumps({"text": text, "id": f"visit {i}"}) for i, text in enumerate(trained.others)))
    return {"train": str(folder / "train.txt"), "test": str(folder / "test.jsonl")}


def test_the_verb_does_what_the_tester_does(trained, lists, tmp_path, capfd):
    asked = ["tester", "--model", trained.tuned, "--train", lists["train"], "--test", lists["test"], "--max-length", "48", "--device", "cpu"]
    written = {kind: str(tmp_path / f"report.{kind}") for kind in ("html", "json", "csv")}
    code = cli.main([*asked, "--attacks", "loss", "--output", written["html"], "--json", written["json"], "--csv", written["csv"]])
    said, noise = capfd.readouterr()

    expected = MembershipTester(trained.tuned, device="cpu", max_length=48).run_attacks(trained.members, trained.others, attacks=["loss"])
    assert code == 0 and noise == ""
    assert json.loads(Path(written["json"]).read_text())["attacks"] == expected.found["attacks"]
    assert str(expected) in said and f"1. {expected.recommendations()[0]}" in said and f"written: {written['csv']}" in said
    assert pd.read_csv(written["csv"])["id"].tolist()[60:62] == ["visit 0", "visit 1"] and "<h1>tuned" in Path(written["html"]).read_text()


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"train": "nowhere.txt"}, "memleak tester: nowhere.txt: there is no such file or folder"),
        ({"column": "note"}, "there is no column note; it has text, id; name one of them"),
        ({"attacks": "ez"}, "memleak tester: attacks: 'ez' compares with a model that has not seen the texts"),
        ({"reference": "base"}, "reference: nothing says what"),
        ({"model": "nobody/has-this-model"}, "nobody/has-this-model"),
    ],
)
def test_the_verb_answers_bad_input_in_one_sentence(trained, lists, changed, sentence, capsys):
    asked = {"model": trained.tuned, **lists, "device": "cpu"} | changed
    code = cli.main(["tester", "--offline", *(word for key, value in asked.items() for word in (f"--{key}", value))])
    said = capsys.readouterr()

    assert code == 1 and sentence in said.err and said.err.count("\n") == 1 and said.out == ""


def test_labels_in_a_file_are_a_classifiers_labels(tmp_path):
    pd.DataFrame({"text": ["a b", "c d"], "label": ["urgent", "calm"]}).to_csv(tmp_path / "named.csv", index=False)
    pd.DataFrame({"text": ["a b", "c d"], "label": [2, 0]}).to_parquet(tmp_path / "numbered.parquet")

    assert files.read(tmp_path / "named.csv")["label"].tolist() == ["urgent", "calm"]
    assert files.read(tmp_path / "numbered.parquet")["label"].tolist() == [2, 0]


# -- what a user is told -------------------------------------------------------------------------------------------


def test_every_warning_of_a_checkpoint_is_told_once(trained):
    tester = MembershipTester(trained.tuned, device="cpu", max_length=100, reference=trained.base)
    found = tester.run_attacks(trained.members, trained.others, attacks=["loss"], controls=False)
    tester.checkpoint.warnings.append("2 weights of the checkpoint are not used")
    assert tester.reference is not None
    tester.reference.warnings.append("1 weight is not used")
    again = tester.run_attacks(trained.members, trained.others, attacks=["loss"], controls=False)

    assert found.warnings == ["max_length: 100 tokens asked, the model reads 64; texts are cut there"]
    assert again.warnings == [*found.warnings, "2 weights of the checkpoint are not used", "reference: 1 weight is not used"]


@pytest.mark.filterwarnings("error")
def test_a_tiny_audit_of_a_model_that_pads_is_quiet(tmp_path, capfd):
    """transformers warns of a first token that is the padding, scikit-learn of one direction."""
    texts_ = notes(6, 4)
    checkpoints.edit_config(checkpoints.tiny_gpt2(tmp_path / "gpt2", texts_, pad=True), pad_token_id=1, eos_token_id=0, bos_token_id=0)
    capfd.readouterr()
    found = MembershipTester(str(tmp_path / "gpt2"), device="cpu", max_length=32).run_attacks(texts_[:1], texts_[1:2])

    assert capfd.readouterr() == ("", "") and found.risk_level == "inconclusive"


# -- which attacks -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("situation", "headline"),
    [
        (Situation("causal-lm", has_reference=True), "ez"),
        (Situation("causal-lm"), "min-k-plus-plus"),
        (Situation("masked-lm", has_reference=True), "reference-difference"),
        (Situation("masked-lm"), "loss"),
        (Situation("sequence-classification", has_labels=True), "loss"),
        (Situation("sequence-classification"), "confidence"),
    ],
)
def test_the_headline_is_fixed_by_what_the_auditor_has(situation, headline):
    attacks, found = choice.choose(situation, "default", "standard")

    assert found == headline and found in attacks


def test_more_effort_is_more_attacks():
    everything = Situation("causal-lm", has_reference=True, has_population=True)
    sizes = [set(choice.choose(everything, "default", effort)[0]) for effort in ("standard", "thorough")]

    assert sizes[0] < sizes[1] and {"recall", "neighbourhood"} <= sizes[1] - sizes[0]
    assert "lowercase" not in choice.choose(Situation("causal-lm"), "default", "quick")[0]


@pytest.mark.parametrize(("n", "alpha"), [(10, 0.1), (20, 0.1), (30, 0.05), (149, 0.05), (150, 0.01), (5000, 0.01)])
def test_the_verdict_reads_the_lowest_rate_that_there_are_texts_for(n, alpha):
    assert choice.alpha_for(n) == alpha
