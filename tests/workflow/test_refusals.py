"""What cannot be is refused in one sentence, and leaves nothing behind."""

import shutil

import pytest

pytestmark = pytest.mark.workflow


def files(folder):
    """All files but Snakemake's own."""
    return {path for path in folder.files("**/*") if path.is_file() and not {".snakemake", "__pycache__"} & set(path.parts)}


@pytest.mark.parametrize(
    ("key", "value", "sentence"),
    [
        ("audits.first.design.rouds", 4, "unknown key 'rouds'"),
        ("audits.first.design.subset_size", 1800, "1800 records asked for, the pool has 1797"),
        ("datasets.digits.name", "digit", "digits"),
    ],
    ids=["misspelt key", "subset larger than the pool", "unknown data set"],
)
def test_params_that_cannot_be_are_refused_before_anything_runs(fresh, key, value, sentence):
    """Exit code, one sentence with the place and what was expected, no file, no traceback."""
    fresh.set(key, value)
    before = files(fresh)
    done = fresh.snakemake()

    assert done.returncode != 0
    assert [line for line in done.stdout.splitlines() if line.startswith("params.yaml: ") and sentence in line], done.stdout
    assert "Traceback" not in done.stdout and files(fresh) == before


def test_a_training_that_diverges_is_named_and_leaves_no_shard(fresh):
    """The sentence names model, epoch and what to do."""
    fresh.set("recipes.tiny.learning_rate", 1e20)
    fresh.set("audits.first.design.holdout_rounds", 0)
    done = fresh.snakemake("models")

    assert done.returncode != 0 and "Traceback" not in done.stdout
    said = "".join(log.read_text() for log in fresh.files("logs/train/*/base-*.log"))
    assert "base-n60-s0-m0000: the loss is nan in epoch" in said and "lower learning_rate" in said
    assert not fresh.files("results/models/*/*") and not fresh.files(".memleak/store/*/*.safetensors")


def test_a_shard_that_is_cut_short_or_of_another_recipe_is_refused(finished):
    """The job `query` names the file; signals are not made from it."""
    base, with_target = (finished.files(f"results/models/*/{kind}-*-m*.safetensors")[0] for kind in ("base", "with"))
    foreign = base.read_bytes().replace(b"tiny-", b"tuny-")
    base.unlink()
    base.write_bytes(foreign)
    cut = with_target.read_bytes()[:-100]
    with_target.unlink()
    with_target.write_bytes(cut)
    shutil.rmtree(finished / "results/signals")
    done = finished.snakemake()

    assert done.returncode != 0 and "Traceback" not in done.stdout
    said = "".join(log.read_text() for log in finished.files("logs/query/*/*/*-m*.log"))
    assert f"{base.relative_to(finished.path)}: holds {base.stem} of recipe tuny-" in said
    assert f"{with_target.relative_to(finished.path)}: truncated" in said
    assert not finished.files("results/signals/*/*/*-m*.parquet")
