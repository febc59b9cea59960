"""Several GPUs on one workstation: as many jobs at once as there are, unless the user says otherwise. The devices are pretended."""

import re
import shutil

import pytest

pytestmark = pytest.mark.workflow


@pytest.fixture
def two_gpus(fresh):
    """A project on a machine that shows two GPUs, which torch cannot use."""
    (fresh / "dev").mkdir()
    for name in ("nvidia0", "nvidia1", "nvidiactl"):
        (fresh / "dev" / name).touch()
    fresh.edit("src/memleak/provenance.py", 'Path("/dev")', f'Path("{fresh / "dev"}")')
    fresh.set("device", "auto")
    return fresh


def jobs_at_once(done):
    return int(re.search(r"^Provided resources:.*gpu=\D*(\d+)", done.stdout, re.MULTILINE)[1])


def test_as_many_jobs_at_once_as_there_are_gpus_unless_resources_are_given(two_gpus):
    assert jobs_at_once(two_gpus.snakemake("data")) == 2
    shutil.rmtree(two_gpus / "data")
    assert jobs_at_once(two_gpus.snakemake("data", CUDA_VISIBLE_DEVICES="1")) == 1
    shutil.rmtree(two_gpus / "data")
    assert jobs_at_once(two_gpus.snakemake("data", "--resources", "gpu=5")) == 5


def test_without_a_gpu_no_job_waits_for_one_and_cuda_is_an_error(fresh, n_shards):
    """On a CPU trainings ask for no GPU; `cuda` lets each of them say why it cannot have one."""
    fresh.set("device", "auto")
    assert not re.search(r"resources:.*gpu=1", fresh.snakemake("-n", "models", CUDA_VISIBLE_DEVICES="").stdout)

    fresh.set("device", "cuda")
    assert re.search(r"resources:.*gpu=1", fresh.snakemake("-n", "models", CUDA_VISIBLE_DEVICES="").stdout)
    done = fresh.snakemake("models", CUDA_VISIBLE_DEVICES="")
    said = [log.read_text() for log in fresh.files("logs/train/*/*.log")]
    assert done.returncode != 0 and len(said) == n_shards
    assert all("device: cuda is asked for, but torch sees no GPU here (CUDA_VISIBLE_DEVICES is '')" in text for text in said)


def test_every_job_takes_a_gpu_by_its_lock(two_gpus, tmp_path):
    """Two locks for two GPUs; here torch cannot use either, and `auto` says so and goes on."""
    done = two_gpus.snakemake("models", MEMLEAK_LOCKS=str(tmp_path / "locks"))
    assert done.returncode == 0, done.stdout
    assert "Execute 2 jobs..." in done.stdout

    said = [log.read_text() for log in two_gpus.files("logs/train/*/*.log")]
    assert all(re.search(r"torch cannot use a GPU \(is GPU [01] there", text) for text in said)
    assert {path.name for path in (tmp_path / "locks").iterdir()} <= {"0.lock", "1.lock"}
