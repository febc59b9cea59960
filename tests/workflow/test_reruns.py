"""What a change makes run again, counted."""

from pathlib import Path

import pytest

pytestmark = pytest.mark.workflow

HEAVY = ("train", "query")


def heavy(jobs):
    """The jobs that need torch."""
    return {rule: n for rule, n in jobs.items() if rule in HEAVY}


def test_everything_is_planned_before_anything_is_there(fresh, n_shards):
    """A fresh folder knows all its jobs: no checkpoint, one page, one index."""
    jobs = fresh.planned()

    assert heavy(jobs) == {"train": n_shards, "query": n_shards}
    assert (jobs["fetch"], jobs["plan"], jobs["score"], jobs["threshold"], jobs["measure"], jobs["index"]) == (1, 1, 2, 2, 1, 1)
    assert not fresh.files("results/*") and not fresh.files("data/*")


def test_a_second_run_has_nothing_to_do(finished):
    """Neither now, nor after every date was changed: content decides."""
    done = finished.snakemake()
    for path in finished.files("data/**/*.*") + finished.files("results/models/**/*.safetensors"):
        path.touch()

    assert done.returncode == 0 and "Nothing to be done" in done.stdout
    assert finished.planned() == {}


def test_planning_and_help_import_no_torch(finished, tmp_path: Path):
    """A package `torch` that cannot be imported disturbs neither `snakemake -n` nor `memleak --help`."""
    (tmp_path / "stub/torch").mkdir(parents=True)
    (tmp_path / "stub/torch/__init__.py").write_text("raise ImportError('torch was imported')")
    (finished / "results/index.html").unlink()

    assert finished.planned(PYTHONPATH=str(tmp_path / "stub")) == {"index": 1}
    assert finished.python("memleak", "--help", PYTHONPATH=f"{tmp_path / 'stub'}:{finished / 'src'}").returncode == 0
    assert "torch was imported" in finished.python("memleak.training.loop", PYTHONPATH=f"{tmp_path / 'stub'}:{finished / 'src'}").stdout


@pytest.mark.parametrize(
    ("key", "value", "new"),
    [
        ("rounds", 8, {"train": 2, "query": 2}),
        ("holdout_rounds", 4, {"train": 2, "query": 2}),
        ("targets", {"random": 1, "mislabelled": 1}, {"train": 2, "query": 4}),  # the base models are asked about both
    ],
)
def test_asking_for_more_trains_only_the_new_shards(finished, key, value, new):
    """More rounds: one shard of base models and one of the target. Another target: its own shards, no base model."""
    finished.set(f"audits.first.design.{key}", value)

    assert heavy(finished.planned()) == new


def test_a_further_round_trains_only_the_new_models(finished):
    """One more round to fit and one to measure are two models without and two with the target; old files stay."""
    before = {path: path.stat().st_mtime_ns for path in finished.files("results/models/*/*.safetensors")}
    finished.set("audits.first.design.rounds", 5)
    finished.set("audits.first.design.holdout_rounds", 3)

    assert finished.run("models") == 4
    assert all(path.stat().st_mtime_ns == mtime for path, mtime in before.items())


@pytest.mark.parametrize(
    ("key", "value", "rules"),
    [
        ("audits.first.attacks.np.alpha", 0.1, {"score", "threshold", "decide", "measure"}),
        ("audits.first.attacks.np.fit", "empirical", {"score", "threshold", "decide", "measure"}),
        ("audits.first.headline", "kde", {"measure", "report_page"}),
        ("audits.first.attacks.third", {"name": "single_point", "fit": "empirical", "alpha": 0.1}, {"score", "threshold", "measure"}),
        ("figures", True, {"figure", "report_page"}),
    ],
)
def test_what_concerns_the_reading_trains_and_asks_nothing(finished, key, value, rules):
    """Another alpha, fit, headline or attack, or figures: no job that needs torch."""
    finished.set(key, value)
    jobs = finished.planned()

    assert heavy(jobs) == {} and rules <= set(jobs)


def test_an_unchanged_attack_is_not_scored_again(finished):
    """Another alpha of one attack leaves the scores and thresholds of the other alone."""
    finished.set("audits.first.attacks.np.alpha", 0.1)
    jobs = finished.planned()

    assert (jobs["score"], jobs["threshold"]) == (1, 1)


def test_another_recipe_has_a_path_of_its_own_and_the_old_one_stays(finished, n_shards, n_models):
    """After other epochs were trained, switching back trains and asks nothing."""
    old = finished.files("results/models/*/*.safetensors")
    finished.set("recipes.tiny.epochs", 3)

    assert finished.run() == n_models
    assert len(old) == n_shards and len(finished.files("results/models/*/*.safetensors")) == 2 * n_shards
    assert all(path.exists() for path in old) and len(finished.files("results/models/*")) == 2

    finished.set("recipes.tiny.epochs", 2)
    assert heavy(finished.planned()) == {}


def test_audits_of_one_recipe_share_their_models(finished, n_shards):
    """The base models are trained once; a target that both audits have, too."""
    second = {"dataset": "digits", "recipe": "tiny", "attacks": {"np": {"name": "single_point"}}}
    design = {"kind": "pairs", "rounds": 4, "holdout_rounds": 2, "subset_size": 60}
    finished.set("audits.second", second | {"design": design | {"targets": {"random": 1}}})
    assert heavy(finished.planned()) == {}

    finished.set("audits.second", second | {"design": design | {"targets": {"mislabelled": 1}}})
    assert finished.planned("models") == {"train": 2}


def test_comments_and_docstrings_rerun_nothing(finished):
    """Neither in the package nor in the workflow."""
    finished.edit("src/memleak/metrics/stage.py", '"""', '"""In other words: ')
    finished.edit("src/memleak/metrics/stage.py", "import numpy", "# a comment\nimport numpy")
    finished.edit("Snakefile", "rule all:", "# a comment\nrule all:")
    finished.edit("workflow/rules/metrics.smk", '"""', '"""In other words: ')

    assert finished.planned() == {}


def test_changed_code_of_the_metrics_reruns_the_metrics_and_what_reads_them(finished):
    """Scores, signals and models stay."""
    with open(finished / "src/memleak/metrics/stage.py", "a") as file:
        file.write("\nNEW_CODE = 1\n")
    jobs = finished.planned()

    assert heavy(jobs) == {} and not {"fetch", "plan", "score"} & set(jobs)
    assert {"threshold", "decide", "measure", "report_page", "index"} <= set(jobs)
