"""What several tests need: a small prepared data set, recipes that train in a blink, the folder of real data."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from memleak import data
from memleak.params import Dataset, Recipe

os.environ["HF_HUB_OFFLINE"] = "1"  # no test asks the hub, whoever runs them; child processes inherit it
PROJECT = Path(__file__).parents[1]


@pytest.fixture(scope="session")
def project() -> Path:
    """The root of the project."""
    return PROJECT


STAND_INS = {  # for what a user makes or brings before an example runs: read by nobody who plans
    "text-finetune/base/config.json": '{"architectures": ["GPT2LMHeadModel"]}',
    "medical/checkpoint/config.json": '{"architectures": ["LlamaForCausalLM"]}',
    "medical/medquad.parquet": "",
}


@pytest.fixture
def params_files(project: Path, tmp_path: Path) -> list[Path]:
    """Every params.yaml of the project and its examples, in a copy where what a user brings has a stand-in."""
    kept_out = shutil.ignore_patterns("results", "data", ".*", "*.parquet")
    for name in ("examples", "workflow/schemas"):
        shutil.copytree(project / name, tmp_path / name, ignore=kept_out)
    shutil.copy(project / "params.yaml", tmp_path / "params.yaml")
    for name, text in STAND_INS.items():
        (tmp_path / "examples" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "examples" / name).write_text(text)
    files = [tmp_path / "params.yaml", *sorted(tmp_path.glob("examples/**/params.yaml"))]
    return [path for path in files if "classic-tasks" not in path.parts]  # plug-ins of its own folder: test_classic_tasks


@pytest.fixture(scope="session")
def digits_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The description of the prepared digits."""
    path = tmp_path_factory.mktemp("digits") / "dataset.json"
    data.prepare(Dataset(name="digits"), path)
    return path


@pytest.fixture(scope="session")
def digits(digits_path: Path) -> data.Dataset:
    """scikit-learn's digits, prepared."""
    return data.read(digits_path)


@pytest.fixture
def table(tmp_path: Path) -> data.Dataset:
    """200 records of five features, the first of which tells their class, prepared."""
    (tmp_path / "mine.py").write_text(
        "import numpy as np\nfrom memleak.data import Samples\ndef load(source):\n"
        "    x = np.random.default_rng(0).normal(5, 3, size=(200, 5)); return Samples(x, (x[:, 0] > 5).astype(int))\n"
    )
    data.prepare(Dataset(name=f"{tmp_path / 'mine.py'}:load"), tmp_path / "dataset.json")
    return data.read(tmp_path / "dataset.json")


@pytest.fixture
def tiny() -> Recipe:
    """A recipe that trains in a blink."""
    return Recipe(architecture="mlp", hidden=(16,), epochs=2, batch_size=16, learning_rate=0.1)


@pytest.fixture(scope="session")
def test_data() -> Path:
    """The folder of real data sets, or a reason to skip."""
    folder = os.environ.get("MEMLEAK_TEST_DATA")
    if not folder or not Path(folder).is_dir():
        pytest.skip("MEMLEAK_TEST_DATA names no folder of real data")
    return Path(folder)


@pytest.fixture(autouse=True)
def _denormals_are_back() -> Iterator[None]:
    """A training job flushes denormal numbers to zero in its process; the next test is not to inherit that."""
    yield
    if "torch" in sys.modules:
        sys.modules["torch"].set_flush_denormal(False)


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)
