"""Models of texts are asked, by the shard or alone, and what they say is written."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from checkpoints import tiny_bert_classifier, tiny_bert_mlm, tiny_gpt2, tiny_token_classifier, tiny_vit
from passages import checkpoint_recipe, gpt2_recipe, passages

from memleak import artefacts, data
from memleak.attacks import pools
from memleak.designs import Complements, Rounds, roster_of
from memleak.models import hub
from memleak.params import GivenModel
from memleak.params.texts import LANGUAGE_SIGNALS, TEXT_SIGNALS, TOKEN_SIGNALS
from memleak.signals import SignalError, stage
from memleak.signals.language.asking import Reader
from memleak.signals.language.showing import Showing
from memleak.training import stage as training

POOL = {"samples": "pool", "seed": 0, "views": ["identity"], "pool": 30}
GIVEN = {"samples": "given", "seed": 0, "views": ["identity"], "members": "members", "non_members": "non-members"}
PARTS = {"members": [0, 25], "non-members": [25, 50], "public": [50, 60]}
OF_TOKENS = [name for name in TOKEN_SIGNALS if name != "reference_log_prob"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("models")


@pytest.fixture(scope="module")
def base(folder) -> Path:
    return tiny_gpt2(folder / "base")


@pytest.fixture(scope="module")
def dataset(folder):
    found = passages(folder / "data")
    return replace(found, facts=found.facts | {"parts": PARTS})


@pytest.fixture
def asked_about(dataset, tmp_path, monkeypatch):
    """Train a shard of a recipe and ask it; or the same with another data set."""
    monkeypatch.setenv("MEMLEAK_STORE", str(tmp_path / "store"))

    def ask(recipe, query, shard=None, about=dataset, name="answers.parquet"):
        monkeypatch.setattr(data, "read", lambda path: about)
        shard = shard or Complements(0, 0, 2, pool=30)
        models = tmp_path / "models.safetensors"
        if not models.exists():
            training.train(tmp_path, "r", recipe, shard, models, "cpu")
        stage.query(models, tmp_path, "r", recipe, shard, query, tmp_path / name, "cpu")
        return tmp_path / name

    return ask


@pytest.fixture
def given(dataset, tmp_path, monkeypatch):
    """Ask a checkpoint of the user's."""

    def ask(checkpoint, query=GIVEN, about=dataset, loaded=None, **fields):
        monkeypatch.setattr(data, "read", lambda path: about)
        model = GivenModel(checkpoint=str(checkpoint), **fields)
        stage.query_given("mine", model, tmp_path, query, tmp_path / "answers.parquet", "cpu", loaded)
        return tmp_path / "answers.parquet"

    return ask


def read(path, columns):
    facts, table = artefacts.read_facts(path), artefacts.read_table(path, ["sample_id"])
    return pools.read_signals([path], [model["model_id"] for model in facts["models"]], table["sample_id"].unique(), columns)


def test_a_shard_says_of_each_text_what_training_said_of_its_members(asked_about, dataset):
    """Two ways to the same figure: the loop's own loss on a model's training set, and the signals of its members."""
    path = asked_about(gpt2_recipe(), POOL)

    found, models = read(path, ["loss", "n_tokens"]), artefacts.read_facts(path)["models"]
    tasks, pool = Complements(0, 0, 2, pool=30).tasks(dataset), roster_of(POOL, dataset).sample_id
    for row, (task, model) in enumerate(zip(tasks, models, strict=True)):
        members = np.isin(pool, task.members)
        assert found["loss"][row, members, 0].mean() == pytest.approx(model["train_loss"], rel=1e-4)
        assert found["n_tokens"][row, members, 0].sum() == model["n_tokens"] - members.sum()  # the first is not scored


def test_every_column_is_there_and_tokens_follow_from_one_another(asked_about):
    path = asked_about(gpt2_recipe(), POOL)

    assert artefacts.columns_of(path) == {"model_id", "sample_id", "view", *LANGUAGE_SIGNALS, *TEXT_SIGNALS, *OF_TOKENS}
    found = read(path, [*LANGUAGE_SIGNALS, *TEXT_SIGNALS, *OF_TOKENS])
    n = found["n_tokens"]
    assert found["log_prob"].shape == (2, 30, 1, n.max()) and (np.isfinite(found["log_prob"]).sum(-1) == n).all()
    assert -np.nanmean(found["log_prob"], axis=-1) == pytest.approx(found["loss"], rel=1e-5)
    assert ((found["token_id"] >= 0).sum(-1) == n).all()
    assert ((found["zlib_bytes"] > 8) & (found["n_bytes"] >= n)).all()


@pytest.mark.parametrize("lora", [None, {"rank": 2}])
def test_models_that_began_as_a_checkpoint_have_its_own_answers_beside_theirs(asked_about, base, dataset, lora):
    path = asked_about(checkpoint_recipe(base, lora, learning_rate=0.02), POOL)

    found = read(path, ["log_prob", "reference_log_prob"])
    checkpoint = hub.load(str(base), "cpu", max_length=40)
    reader = Reader(checkpoint.network, checkpoint.task, checkpoint.tokenizer, 40)
    roster = roster_of(POOL, dataset)
    expected = reader.score(reader.read((None, list(dataset.inputs[roster.source_id])), roster.sample_id), "").columns["log_prob"]
    for row in found["reference_log_prob"]:
        assert row[np.isfinite(row)] == pytest.approx(expected, rel=1e-4, abs=1e-5)
    assert np.nanmax(abs(found["log_prob"] - found["reference_log_prob"])) > 0.01


def test_views_of_texts_stand_side_by_side(asked_about):
    views = ["identity", "lowercase", "neighbours-2", "prefix-2"]
    path = asked_about(gpt2_recipe(), POOL | {"views": views})
    alone = asked_about(gpt2_recipe(), POOL, name="alone.parquet")

    loss = read(path, ["loss"])["loss"]
    assert loss.shape == (2, 30, 5)
    assert loss[:, :, 0] == pytest.approx(read(alone, ["loss"])["loss"][:, :, 0], rel=1e-5)
    assert (np.diff(loss[:, :, [0, 1, 2, 3]], axis=-1) != 0).any(axis=(0, 1)).all()


def test_a_text_of_pairs_has_the_same_bits_whatever_else_is_asked(asked_about):
    shard = Rounds(target=None, role="fit", seed=0, first=0, last=1, subset_size=20)
    targets = {"samples": "targets", "seed": 0, "views": ["identity"]}

    few = read(asked_about(gpt2_recipe(), targets | {"targets": ["index00007"]}, shard), ["loss"])
    more = read(asked_about(gpt2_recipe(), targets | {"targets": ["index00003", "index00007", "index00011"]}, shard), ["loss"])

    assert few["loss"][0, 0, 0] == more["loss"][0, 1, 0]


def test_gradients_are_measured_where_they_are_asked(asked_about):
    entry = {"column": "gradient_norm", "name": "gradient_norm", "options": {}}

    path = asked_about(gpt2_recipe(), POOL | {"signals": [entry]})

    norms = read(path, ["gradient_norm"])["gradient_norm"]
    assert norms.shape == (2, 30, 1) and (norms > 0).all() and np.unique(norms).size > 50


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"release": [{"name": "top_k", "options": {"k": 3}}]}, "release: its steps change the probabilities of a few classes"),
        ({"logits": True}, "logits: those of a language model"),
        ({"signals": [{"column": "x", "name": "noise_robustness", "options": {}}]}, "noise_robustness: .* texts cannot be"),
        ({"views": ["prefix-4"], "pool": 57}, "prefix-4: it takes 5 texts outside every training set, 3 are there"),
    ],
)
def test_what_language_models_do_not_tell_is_refused(asked_about, more, said):
    with pytest.raises(SignalError, match=said):
        asked_about(gpt2_recipe(), POOL | more)


def test_shots_stand_outside_the_pool_and_no_text_before_itself(dataset):
    dataset = replace(dataset, inputs=np.array([f"<{i}>" for i in range(60)], dtype=object))
    outside = POOL | {"samples": "population", "views": ["prefix-3"]}
    pool, population = (roster_of(query, dataset) for query in (POOL, outside))

    of_pool = Showing(POOL | {"views": ["prefix-3"]}, dataset, pool).shown(0)[0]
    of_population = Showing(outside, dataset, population).shown(0)[0]

    shots = set(of_pool)
    assert len(shots) == 1 and not any(text in of_pool[0] for text in dataset.inputs[pool.source_id])
    assert sum(text in of_pool[0] for text in dataset.inputs[population.source_id]) == 3
    assert not any(text in before for text, before in zip(dataset.inputs[population.source_id], of_population, strict=True))
    assert sum(before in shots for before in of_population) == len(population) - 3


def test_shots_of_a_given_model_come_from_the_part_that_the_query_names(dataset):
    query = GIVEN | {"views": ["prefix-2"], "shots": "public"}

    (prefix,) = set(Showing(query, dataset, roster_of(query, dataset)).shown(0)[0])

    assert [row for row, text in enumerate(dataset.inputs) if text in prefix and row < 50] == []
    assert sum(text in prefix for text in dataset.inputs[50:]) == 2


def test_classifiers_of_texts_tell_the_ordinary_signals(asked_about, tmp_path):
    labelled = passages(tmp_path / "labelled", labels=np.arange(60) % 3)
    entry = {"column": "gradient_norm", "name": "gradient_norm", "options": {}}
    recipe = gpt2_recipe(text={"task": "sequence-classification"})

    path = asked_about(recipe, POOL | {"logits": True, "views": ["identity", "lowercase"], "signals": [entry]}, about=labelled)

    found = read(path, [*artefacts.SIGNALS, "logits", "gradient_norm"])
    assert found["logits"].shape == (2, 30, 2, 3) and found["margin"].shape == (2, 30, 2)
    assert (found["gradient_norm"] > 0).all()
    with pytest.raises(SignalError, match="prefix-1: texts are put before a record for language models"):
        asked_about(recipe, POOL | {"views": ["prefix-1"]}, about=labelled)


# ---------------------------------------------------------------------------------------------- checkpoints of the user's


def test_a_given_checkpoint_is_asked_and_described(given, base, folder):
    path = given(base, max_length=30, reference=str(tiny_gpt2(folder / "other", seed=1)))

    (facts,), found = artefacts.read_facts(path)["models"], read(path, ["loss", "log_prob", "reference_log_prob", "log_rank"])
    assert facts["form"] == "checkpoint (GPT2LMHeadModel)" and facts["name"] == str(base) and facts["is_repeatable"]
    assert facts["max_length"] == 30 and facts["n_truncated"] > 0 and facts["n_tokens_dropped"] >= facts["n_truncated"]
    assert (facts["n_train"], facts["n_test"]) == (25, 25) and len(facts["sha256"]) == len(facts["reference"]["sha256"]) == 64
    assert facts["train_loss"] == pytest.approx(found["loss"][0, :25].mean(), rel=1e-5)
    assert facts["test_accuracy"] == pytest.approx(np.mean([np.mean(row[np.isfinite(row)] == 0) for row in found["log_rank"][0, 25:50, 0]]))
    assert np.isfinite(found["reference_log_prob"]).sum() == np.isfinite(found["log_prob"]).sum()
    assert np.nanmax(abs(found["log_prob"] - found["reference_log_prob"])) > 0.1


def test_a_checkpoint_in_memory_may_be_handed_over(given, base):
    path = given("a-name", loaded=replace(hub.load(str(base), "cpu"), name="in memory"))

    assert artefacts.read_facts(path)["models"][0]["name"] == "in memory"
    assert np.isfinite(read(path, ["loss"])["loss"]).all()


def test_a_reference_with_other_tokens_is_refused(given, base, folder):
    other = tiny_gpt2(folder / "coarse", vocabulary=270)

    with pytest.raises(SignalError, match=r"coarse: cuts texts into other tokens .* \(record 0 first\)"):
        given(base, reference=str(other))


def test_a_reference_of_another_kind_is_refused(given, base, folder):
    with pytest.raises(SignalError, match=r"is asked as masked-lm, .* the audited model as causal-lm"):
        given(base, reference=str(tiny_bert_mlm(folder / "masked")))


def test_masked_models_are_asked_by_pseudo_log_likelihood(given, folder):
    found = read(given(tiny_bert_mlm(folder / "mlm"), max_length=12), ["loss", "n_tokens"])

    assert np.isfinite(found["loss"]).all() and found["n_tokens"].max() == 10  # without [CLS] and [SEP]


def test_given_classifiers_tell_the_signals_of_classifiers(given, folder, tmp_path):
    labelled = passages(tmp_path / "labelled", labels=np.arange(60) % 3)
    labelled = replace(labelled, facts=labelled.facts | {"parts": PARTS})
    entry = {"column": "steep", "name": "gradient_norm", "options": {}}

    path = given(tiny_bert_classifier(folder / "classifier"), GIVEN | {"signals": [entry], "logits": True}, labelled)

    found = read(path, [*artefacts.SIGNALS, "steep", "logits"])
    assert found["margin"].shape == (1, 50, 1) and found["logits"].shape == (1, 50, 1, 3) and (found["steep"] > 0).all()
    assert artefacts.read_facts(path)["models"][0]["train_accuracy"] == pytest.approx(found["is_correct"][0, :25].mean())
    with pytest.raises(SignalError, match="tells 2 labels apart"):
        given(tiny_bert_classifier(folder / "two", labels=("a", "b")), GIVEN, labelled)


def test_checkpoints_that_do_not_fit_the_data_are_refused(given, folder):
    with pytest.raises(SignalError, match="a label for each token"):
        given(tiny_token_classifier(folder / "tokens"))
    with pytest.raises(SignalError, match=r"reads images, and the records have shape \(\)"):
        given(tiny_vit(folder / "vit"))


def test_a_text_of_which_nothing_can_be_scored_is_named(given, base, dataset):
    texts = dataset.inputs.copy()
    texts[13] = "a"

    with pytest.raises(SignalError, match=r"record 13: no token .* \(it has 1, .*; 1 such texts"):
        given(base, about=replace(dataset, inputs=texts))


@pytest.fixture(autouse=True)
def as_it_was():
    """`devices.prepare_torch` sets torch up for the process."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)
