"""params.yaml: what is refused is refused in one clear sentence."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import yaml

from memleak import params
from memleak.params import ParamsError


@pytest.fixture
def config(project) -> dict[str, Any]:
    return yaml.safe_load((project / "params.yaml").read_text())


def _set(config: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    changed = copy.deepcopy(config)
    *above, last = path.split("/")
    place = changed
    for key in above:
        place = place[key]
    place[last] = value
    return changed


AUDIT = "audits/digits-single-point"
BAD = {
    "misspelt key": ("recipes/digits-cnn/epoch", 3, "unknown key 'epoch' (did you mean 'epochs'?)"),
    "misspelt top-level key": ("dataset", {}, "unknown key 'dataset' (did you mean 'datasets'?)"),
    "wrong type": ("recipes/digits-cnn/epochs", "many", "recipes.digits-cnn.epochs: should be a valid integer"),
    "negative count": (f"{AUDIT}/design/rounds", -4, "design.rounds: should be greater than or equal to 2, found -4"),
    "zero count": ("recipes/digits-cnn/batch_size", 0, "batch_size: should be greater than 0, found 0"),
    "subset larger than the pool": (f"{AUDIT}/design/subset_size", 1797, "1797 records asked for, the pool has 1797"),
    "pool larger than the data": (f"{AUDIT}/design/pool", 5000, "5000 records asked for, the data set has 1797"),
    "target out of range": (f"{AUDIT}/design/targets", {"index": [1797]}, "record 1797 is out of range, the data set has 1797 (0 to 1796)"),
    "no target": (f"{AUDIT}/design/targets", {}, "no target is asked for"),
    "alpha of one": (f"{AUDIT}/attacks/np-kde/alpha", 1, "attacks.np-kde.alpha: should be less than 1, found 1"),
    "alpha of zero": (f"{AUDIT}/attacks/np-kde/alpha", 0, "attacks.np-kde.alpha: should be greater than 0, found 0"),
    "unknown option of an attack": (f"{AUDIT}/attacks/np-kde/fits", "kde", "unknown key 'fits' (did you mean 'fit'?)"),
    "unknown fit": (f"{AUDIT}/attacks/np-kde/fit", "gauss", "should be 'normal', 'kde' or 'empirical', found 'gauss'"),
    "ratio of what has no density": (f"{AUDIT}/attacks/np-empirical/test", "likelihood_ratio", "needs densities"),
    "unknown data set": ("datasets/digits/name", "digit", "no dataset is called 'digit' (did you mean 'digits'?)"),
    "unknown architecture": ("recipes/digits-cnn/architecture", "smal_cnn", "no architecture is called 'smal_cnn' (did you mean 'small_cnn'?)"),
    "unknown attack": (f"{AUDIT}/attacks/np-kde/name", "single_pont", "no attack is called 'single_pont' (did you mean 'single_point'?)"),
    "attack without a name": (f"{AUDIT}/attacks/np-kde", {}, "'name' is missing"),
    "recipe that is not there": (f"{AUDIT}/recipe", "digits-cn", "no recipe is called 'digits-cn' (did you mean 'digits-cnn'?)"),
    "data set that is not there": (f"{AUDIT}/dataset", "cifar", "no dataset is called 'cifar'"),
    "headline that is not there": (f"{AUDIT}/headline", "rmia", "no attack is called 'rmia'"),
    "source that is not there": ("datasets/digits/source", "nowhere", "there is no file or folder 'nowhere'"),
    "id that leaves its folder": ("datasets/..%2Fx", {"name": "digits"}, "an id has small letters, digits and '-' only"),
    "learning rate that is no number": ("recipes/digits-cnn/learning_rate", None, "learning_rate: should be a valid number"),
}


@pytest.mark.parametrize("fault", BAD, ids=lambda fault: fault.replace(" ", "-"))
def test_bad_params_are_named_in_one_sentence(config, fault):
    path, value, expected = BAD[fault]

    with pytest.raises(ParamsError) as caught:
        params.validate(_set(config, path, value))

    assert expected in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_every_fault_has_a_line_of_its_own(config):
    changed = _set(_set(config, "seed", -1), "models_per_shard", 0)

    with pytest.raises(ParamsError) as caught:
        params.validate(changed)

    assert len(str(caught.value).splitlines()) == 2


def test_a_null_index_is_a_random_record(config):
    changed = _set(config, f"{AUDIT}/design/targets", {"index": [5, None]})

    targets = params.validate(changed).audits["digits-single-point"].design.targets

    assert targets.names() == ["random00", "index00005"]


def test_text_that_is_not_yaml_is_said_so():
    with pytest.raises(ParamsError, match="this is not YAML"):
        params.parse("a: [1", "params.yaml")
    with pytest.raises(ParamsError, match="expected a mapping of keys, found str"):
        params.parse("just words", "params.yaml")


def test_a_missing_file_is_said_so(tmp_path):
    with pytest.raises(ParamsError, match="there is no such file"):
        params.load(tmp_path / "params.yaml")


def test_params_cannot_be_changed(config):
    with pytest.raises(ValueError, match="frozen"):
        params.validate(config).seed = 3  # type: ignore[misc]
