"""The user's own model in whatever form: the same answers from all of them, and a sentence for what cannot be used."""

from __future__ import annotations

import warnings
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.svm import SVC
from torch import nn

from memleak import plugins
from memleak.data import Samples
from memleak.models import ModelError, given, weights
from memleak.params.designs import GivenModel

N, C = 23, 4
IMAGES = np.random.default_rng(0).integers(0, 256, (N, 6, 6, 3)).astype(np.uint8)
ROWS = np.random.default_rng(1).normal(size=(N, 5)).astype(np.float32)
LABELS = np.arange(N) % C
PICTURES = given.Records.of(Samples(IMAGES, LABELS))
TABLE = given.Records.of(Samples(ROWS, LABELS))
NETWORK = """
import torch
from torch import nn

def get_model(shape, n_classes):
    channels = shape[-1]
    return nn.Sequential(nn.Conv2d(channels, 5, 3), nn.BatchNorm2d(5), nn.ReLU(), nn.Flatten(), nn.Linear(80, n_classes))
"""


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def _named(code: str, **fields) -> GivenModel:
    """A model whose function stands in a file of its own."""
    path = Path("my_model.py").resolve()  # absolute: the function is kept by the path of its file
    path.write_text(code)
    return GivenModel(name=f"{path}:get_model", **fields)


def _trained(seed: int = 1) -> nn.Module:
    """A network of that shape whose batch normalisation has seen something."""
    torch.manual_seed(seed)
    network = nn.Sequential(nn.Conv2d(3, 5, 3), nn.BatchNorm2d(5), nn.ReLU(), nn.Flatten(), nn.Linear(80, C))
    network(torch.rand(64, 3, 6, 6))
    return network.eval()


def _expected(network: nn.Module, images: np.ndarray = IMAGES) -> np.ndarray:
    with torch.no_grad():
        return network(torch.from_numpy(images).permute(0, 3, 1, 2).contiguous().float().div(255)).numpy()


# -- weights ------------------------------------------------------------------------------------------------------


def _wrapped(state: dict, key: str) -> dict:
    return {"epoch": 3, "loss": [0.1, 0.2], key: state}


SAVED = {
    "a state dict": lambda net, path: torch.save(net.state_dict(), path),
    "one of an old format": lambda net, path: torch.save(net.state_dict(), path, _use_new_zipfile_serialization=False),
    "safetensors": lambda net, path: save_file(net.state_dict(), path),
    "a checkpoint of a Trainer": lambda net, path: torch.save(_wrapped(net.state_dict(), "state_dict"), path),
    "a checkpoint in a checkpoint": lambda net, path: torch.save(_wrapped({"model": net.state_dict()}, "state_dict"), path),
    "weights of DataParallel": lambda net, path: torch.save({f"module.{name}": t for name, t in net.state_dict().items()}, path),
    "weights of a compiled DataParallel": lambda net, path: torch.save({f"_orig_mod.module.{n}": t for n, t in net.state_dict().items()}, path),
    "weights of a module that holds the network": lambda net, path: torch.save({f"model.{n}": t for n, t in net.state_dict().items()}, path),
    "weights of half precision": lambda net, path: torch.save(
        {n: t.half() if t.dtype == torch.float32 else t for n, t in net.state_dict().items()}, path
    ),
    "weights without counters": lambda net, path: torch.save({n: t for n, t in net.state_dict().items() if "tracked" not in n}, path),
}


@pytest.mark.parametrize("form", SAVED)
def test_weights_are_told_by_their_content(form):
    network = _trained()
    SAVED[form](network, "weights.bin")

    answers = given.load(_named(NETWORK, weights="weights.bin"), PICTURES).answer(IMAGES)

    assert answers == pytest.approx(_expected(network), abs=5e-3 if "half" in form else 1e-5)


def test_all_weights_that_do_not_fit_are_counted_and_the_first_named():
    state = _trained().state_dict()
    torch.save(
        {**{f"head.{i}": torch.zeros(1) for i in range(7)}, **{n: t for n, t in state.items() if n != "0.bias"}, "4.weight": torch.zeros(9, 80)}, "w"
    )

    with pytest.raises(ModelError, match="does not fit Sequential, which has 9 weights") as error:
        given.load(_named(NETWORK, weights="w"), PICTURES)

    assert "lacks 1 (0.bias)" in str(error.value)
    assert "has unknown 7 (head.0, head.1, head.2, head.3, head.4, ...)" in str(error.value)
    assert "has misshapen 1 (4.weight (9, 80) instead of (4, 80))" in str(error.value)


class Own:
    pass


def _cut(path: str) -> None:
    content = Path(path).read_bytes()
    Path(path).write_bytes(content[: len(content) * 2 // 3])


def _cut_state():
    torch.save(_trained().state_dict(), "w")
    _cut("w")


def _cut_safetensors():
    save_file(_trained().state_dict(), "w")
    _cut("w")


WRONG_FILES = {
    "a pickle of a whole model": (lambda: torch.save(_trained(), "w"), r"holds torch\.nn\.modules\.\S+ beside tensors, .*may run code.*state_dict\(\)"),
    "an object of the user's": (lambda: torch.save({"state_dict": {}, "own": Own()}, "w"), r"holds \S*Own beside tensors"),
    "a list": (lambda: torch.save([torch.zeros(1)], "w"), r"holds list, expected the dict that model\.state_dict\(\) gives"),
    "another dict": (lambda: torch.save({"epoch": 1, "history": [1]}, "w"), "keys epoch, history, none of which holds a state dict"),
    "a text": (lambda: Path("w").write_text("version https://git-lfs"), "not safetensors, a state dict of torch, TorchScript or ONNX"),
    "nothing": (lambda: Path("w").write_bytes(b""), "not safetensors, a state dict"),
    "a state dict that was cut": (_cut_state, "cut short"),
    "safetensors that were cut": (_cut_safetensors, "cut short or not safetensors"),
    "weights that are not finite": (
        lambda: torch.save(_trained().state_dict() | {"0.bias": torch.full((5,), torch.nan)}, "w"), r"NaN or infinite values in 1 \(0\.bias\)",
    ),
    "TorchScript for a network": (lambda: _script(_trained(), "w"), "TorchScript is a whole model, not weights for one; leave model.name out"),
}  # fmt: skip


def _script(network: nn.Module, path: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.trace(network, torch.zeros(2, 3, 6, 6)).save(path)


@pytest.mark.parametrize("fault", WRONG_FILES, ids=lambda fault: fault.replace(" ", "-"))
def test_a_file_that_holds_no_weights_is_named(fault):
    make, expected = WRONG_FILES[fault]
    make()

    with pytest.raises(ModelError, match="^w: .*" + expected):
        given.load(_named(NETWORK, weights="w"), PICTURES)


def test_opening_a_pickle_runs_none_of_its_code():
    class Evil:
        def __reduce__(self):
            return Path.touch, (Path("touched"),)

    torch.save({"state_dict": Evil()}, "w")

    with pytest.raises(ModelError, match="may run code"):
        given.load(_named(NETWORK, weights="w"), PICTURES)
    assert not Path("touched").exists()


# -- forms of models ----------------------------------------------------------------------------------------------


def test_torchscript_needs_no_code():
    network = _trained()
    _script(network, "model.bin")

    loaded = given.load(GivenModel(weights="model.bin"), PICTURES)

    assert loaded.answer(IMAGES) == pytest.approx(_expected(network), abs=1e-5)
    assert loaded.form == "TorchScript" and loaded.network is not None


def test_onnx_needs_no_code():
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnx")
    network = _trained()
    for name, axes in (("any.onnx", {"x": {0: "n"}}), ("two.onnx", None)):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.onnx.export(network, (torch.zeros(2, 3, 6, 6),), name, dynamo=False, input_names=["x"], dynamic_axes=axes)

        loaded = given.load(GivenModel(weights=name), PICTURES)

        assert loaded.answer(IMAGES) == pytest.approx(_expected(network), abs=1e-4)
        assert loaded.network is None and "onnxruntime" in loaded.describe()["versions"]
    Path("bad.onnx").write_bytes(Path("any.onnx").read_bytes()[:300])
    with pytest.raises(ModelError, match=r"bad\.onnx: cannot be loaded as ONNX"):
        given.load(GivenModel(weights="bad.onnx"), PICTURES)


def test_onnx_without_its_library_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "onnxruntime", None)
    Path("model.onnx").write_bytes(b"\x08\x09\x12\x07pytorch")

    with pytest.raises(ModelError, match=r"pip install 'memleak\[onnx\]'"):
        given.load(GivenModel(weights="model.onnx"), PICTURES)


class Exported:
    """A session of onnxruntime, as far as its outputs go."""

    def __init__(self, *outputs: tuple[str, str]) -> None:
        self.outputs = outputs

    def get_outputs(self):
        return [SimpleNamespace(name=name, type=type_) for name, type_ in self.outputs]


def test_of_an_exported_classifier_the_output_that_is_asked_for_is_taken():
    """Exports of scikit-learn give labels and probabilities, the latter as a list of dicts unless told otherwise."""
    both, dicts = (Exported(("label", "tensor(int64)"), ("p", kind)) for kind in ("tensor(float)", "seq(map(int64,tensor(float)))"))

    assert given._output_of(both, Path("m"), "probabilities") == given._output_of(both, Path("m"), "logits") == "p"
    assert given._output_of(both, Path("m"), "labels") == given._output_of(dicts, Path("m"), "labels") == "label"
    assert given._output_of(Exported(("y", "tensor(float)")), Path("m"), "labels") == "y"  # labels as whole floats
    with pytest.raises(ModelError, match="and output: probabilities asks an array of it; export with zipmap=False"):
        given._output_of(dicts, Path("m"), "probabilities")


def test_weights_alone_are_not_a_model():
    torch.save(_trained().state_dict(), "w.pt")

    with pytest.raises(ModelError, match=r"weights without a network .*; name the function that makes it"):
        given.load(GivenModel(weights="w.pt"), PICTURES)


BUILT = {"forest": RandomForestClassifier(5, random_state=0), "regression": LogisticRegression(), "machine": SVC()}


def _returning(built, monkeypatch, **fields) -> GivenModel:
    """A model whose function returns an object of this process."""
    monkeypatch.setattr(plugins, "function_of", lambda room, name: lambda: built)
    return _named("", **fields)


@pytest.mark.parametrize(
    ("name", "output", "method"),
    [
        ("forest", "probabilities", "predict_proba"), ("forest", "labels", "predict"),
        ("regression", "logits", "decision_function"), ("machine", "logits", "decision_function"),
    ],
)  # fmt: skip
def test_an_estimator_gives_what_is_asked(name, output, method, monkeypatch):
    built = BUILT[name].fit(ROWS, LABELS)

    loaded = given.load(_returning(built, monkeypatch, output=output), TABLE)

    assert np.array_equal(loaded.answer(ROWS), getattr(built, method)(ROWS))
    assert loaded.network is None and loaded.form == f"estimator ({type(built).__name__})"


def test_an_estimator_of_images_is_given_flat_rows(monkeypatch):
    built = LogisticRegression().fit(IMAGES.reshape(N, -1), LABELS)

    assert given.load(_returning(built, monkeypatch), PICTURES).answer(IMAGES).shape == (N, C)


def test_a_class_that_an_estimator_has_never_seen_has_no_probability(monkeypatch):
    built = RandomForestClassifier(5, random_state=0).fit(ROWS[LABELS != 1], LABELS[LABELS != 1])

    found = given.load(_returning(built, monkeypatch, output="probabilities"), TABLE).answer(ROWS)

    assert np.array_equal(found[:, [0, 2, 3]], built.predict_proba(ROWS)) and not found[:, 1].any()


@pytest.mark.parametrize(
    ("built", "output", "expected"),
    [
        (RandomForestClassifier(2).fit(ROWS, LABELS), "logits", "has no decision_function, which output: logits asks; it has probabilities, labels"),
        (RandomForestClassifier(2).fit(ROWS, LABELS + 1), "labels", "its classes are 1, 2, 3, 4 ..., the data set has 0 to 3"),
        (SVC(decision_function_shape="ovo").fit(ROWS, LABELS), "logits", "gives 6 logits a record, the data set has 4 classes"),
        (RandomForestClassifier(2), "labels", "raised NotFittedError on 23 records float32 of shape .5,."),
    ],
)
def test_an_estimator_that_does_not_fit_is_named(built, output, expected, monkeypatch):
    with pytest.raises(ModelError, match=expected):
        given.load(_returning(built, monkeypatch, output=output), TABLE).answer(ROWS)


def test_a_function_is_given_records_as_stored_and_cannot_change_them():
    code = (
        "import numpy as np\ndef get_model():\n    def ask(x):\n        assert x.dtype == np.uint8 and x.shape[1:] == (6, 6, 3)\n"
        "        found = x.reshape(len(x), -1)[:, :4].astype(float)\n        x[:] = 0\n        return found.tolist()\n    return ask\n"
    )
    images = IMAGES.copy()

    found = given.load(_named(code, batch_size=10), PICTURES).answer(images)

    assert np.array_equal(found, IMAGES.reshape(N, -1)[:, :4])
    assert np.array_equal(images, IMAGES)


def test_our_own_architectures_are_models_too():
    large = np.pad(IMAGES, ((0, 0), (1, 1), (1, 1), (0, 0)))
    records = given.Records.of(Samples(large, LABELS))

    assert given.load(GivenModel(name="memleak.models.small_cnn:build", inputs="normalised"), records).answer(large).shape == (N, C)


@pytest.mark.parametrize("signature", ["", "shape, n_classes", "shape, n_classes, recipe=None", "shape=(6, 6, 3), n_classes=2", "width=4, depth=2"])
def test_a_function_is_called_as_it_wants_to_be(signature):
    n_classes = "n_classes" if "n_classes" in signature else "4"
    code = f"from torch import nn\ndef get_model({signature}):\n    return nn.Sequential(nn.Flatten(), nn.Linear(108, {n_classes}))\n"

    assert given.load(_named(code), PICTURES).answer(IMAGES).shape == (N, C)


def test_a_function_that_makes_a_network_leaves_the_dice_where_they_were():
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    one, other = (given.load(_named(NETWORK), PICTURES).answer(IMAGES) for _ in range(2))

    assert torch.rand(1) == expected
    assert np.array_equal(one, other)


WRONG_FUNCTIONS = {
    "returns nothing": ("def get_model(): pass", "returned NoneType; it must return a torch.nn.Module.*is `return` missing"),
    "returns a number": ("def get_model(): return 3", "returned int; it must return"),
    "is the function of arrays itself": ("def get_model(inputs): return inputs", r"get_model\(inputs\) cannot be called .*return it from get_model"),
    "wants other things": ("def get_model(a, b, c, d): return 1", r"get_model\(a, b, c, d\) cannot be called"),
    "wants things by name": ("def get_model(*, path): return 1", r"get_model\(\*, path\) cannot be called"),
}


@pytest.mark.parametrize("fault", WRONG_FUNCTIONS, ids=lambda fault: fault.replace(" ", "-"))
def test_a_function_that_makes_no_model_is_named(fault):
    code, expected = WRONG_FUNCTIONS[fault]

    with pytest.raises(ModelError, match=expected):
        given.load(_named(code), PICTURES)


def test_weights_for_what_is_no_network_are_refused():
    torch.save(_trained().state_dict(), "w")

    with pytest.raises(ModelError, match=r"weights w are given, but the function returned function, no torch\.nn\.Module"):
        given.load(_named("def get_model(): return lambda x: x", weights="w"), PICTURES)


# -- answers ------------------------------------------------------------------------------------------------------


def test_what_an_answer_says_does_not_depend_on_the_batch():
    code = NETWORK.replace("return nn", "network = nn").rstrip() + "\n    return network.train()\n"  # a user who forgot eval()
    loaded = given.load(_named(code, batch_size=8), PICTURES)
    whole = loaded.answer(IMAGES)

    assert loaded.network is not None and not loaded.network.training
    assert np.array_equal(loaded.answer(IMAGES[::-1])[::-1], whole)  # bit for bit, the padded last batch included
    assert np.concatenate([loaded.answer(IMAGES[i : i + 1]) for i in range(N)]) == pytest.approx(whole, abs=1e-5)
    loaded.network.train()
    assert np.array_equal(loaded.answer(IMAGES), whole)


def test_a_network_is_given_what_torchvisions_transforms_give():
    from torchvision import transforms

    mean, std = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)
    theirs = transforms.Compose([transforms.ToTensor(), transforms.Normalize(mean, std)])
    model = _named(NETWORK, mean=mean, std=std)

    assert torch.equal(given.prepared(IMAGES, model, PICTURES), torch.stack([theirs(image) for image in IMAGES]))
    assert torch.equal(given.prepared(IMAGES, _named(NETWORK), PICTURES), torch.stack([transforms.ToTensor()(image) for image in IMAGES]))


def test_normalised_is_what_our_own_training_gives(tiny):
    from memleak.training.batches import inputs_on

    for stored, records in ((IMAGES, PICTURES), (ROWS, TABLE)):
        ours = inputs_on(stored, records.mean, records.std, tiny, "cpu").take(torch.arange(N))
        assert torch.equal(given.prepared(stored, _named(NETWORK, inputs="normalised"), records), ours)


def test_fractions_in_the_scale_of_the_stored_ones_are_scaled_too():
    """What an attack asks between two pixels' values: the scale is that of the data set, not of the question's type."""
    model = _named(NETWORK)

    assert given.prepared(IMAGES + 0.5, model, PICTURES)[0, 0, 0, 0] == pytest.approx((float(IMAGES[0, 0, 0, 0]) + 0.5) / 255)
    already = given.Records.of(Samples((IMAGES / 255).astype(np.float32), LABELS))
    assert given.prepared(IMAGES / 255, model, already)[0, 0, 0, 0] == pytest.approx(float(IMAGES[0, 0, 0, 0]) / 255)
    assert given.prepared(IMAGES, _named(NETWORK, inputs="stored"), PICTURES)[0, 0, 0, 0] == IMAGES[0, 0, 0, 0]


def test_a_mean_of_the_wrong_length_is_named():
    with pytest.raises(ModelError, match="mean and std have 2 values, the data has 3 channels"):
        given.load(_named(NETWORK, mean=(0.5, 0.5), std=(1, 1)), PICTURES)


@pytest.mark.parametrize("dtype", ["double", "bfloat16"])
def test_a_network_of_another_precision_is_asked_in_it(dtype):
    code = NETWORK.rstrip() + f".{dtype}()\n"

    loaded = given.load(_named(code), PICTURES)

    assert np.isfinite(loaded.answer(IMAGES)).all()
    assert loaded.prepare(IMAGES).dtype == getattr(torch, dtype)


ANSWERS = {  # of a function of arrays x [n, 6, 6, 3]
    "rows that are not finite": (
        "np.where(np.arange(len(x))[:, None] == 3, np.nan, np.ones((1, 4)))",
        "logits",
        "2 of 20 answers are NaN or infinite, the first about record 3 of",
    ),
    "fewer rows": ("np.zeros((len(x) - 1, 4))", "logits", r"answered with shape \(9, 4\) about 10 records, expected \(10, 4\)"),
    "more classes": (
        "np.zeros((len(x), 10))",
        "logits",
        "gives 10 logits a record, the data set has 4 classes; if the data lacks some, set model.classes to 10",
    ),
    "fewer classes": ("np.zeros((len(x), 3))", "probabilities", "gives 3 probabilities a record, the data set has 4 classes$"),
    "one column": ("np.zeros((len(x), 1))", "logits", "gives one number a record, 4 logits are expected; is it output: labels"),
    "classes instead of a logit": ("np.zeros((len(x), 4))", "binary_logit", "gives 4 numbers a record, and output: binary_logit is one"),
    "words": ("np.array(['cat'] * len(x))", "labels", "answered with ndarray of <U3, expected an array of numbers"),
    "nothing": ("None", "logits", "answered with NoneType, expected an array of numbers"),
    "an error": ("x.fly()", "logits", r"raised AttributeError on 10 records uint8 of shape \(6, 6, 3\): .*has no attribute 'fly'"),
}


@pytest.mark.parametrize("fault", ANSWERS, ids=lambda fault: fault.replace(" ", "-"))
def test_what_is_no_answer_is_named(fault):
    code, output, expected = ANSWERS[fault]
    model = _named(f"import numpy as np\ndef get_model():\n    return lambda x: {code}\n", output=output, batch_size=10)

    with pytest.raises(ModelError, match=expected):
        given.load(model, PICTURES).answer(IMAGES[:20])


def test_a_network_that_raises_says_what_it_was_given():
    model = _named("from torch import nn\ndef get_model(): return nn.Sequential(nn.Flatten(), nn.Linear(7, 4))\n")

    with pytest.raises(ModelError, match=r"raised RuntimeError on 23 records float32 of shape \(3, 6, 6\): mat1 and mat2"):
        given.load(model, PICTURES).answer(IMAGES)


@pytest.mark.parametrize("returned", ["(z, z + 1)", "{'logits': z}", "{'out': z, 'aux': z + 1}", "type('Output', (), {'logits': z})()"])
def test_of_a_network_that_returns_several_things_the_logits_are_taken(returned):
    code = (
        "import torch\nfrom torch import nn\nclass Net(nn.Module):\n    def forward(self, x):\n        z = x.flatten(1)[:, :4]\n"
        f"        return {returned}\ndef get_model(): return Net()\n"
    )

    assert given.load(_named(code), PICTURES).answer(IMAGES) == pytest.approx(IMAGES[..., 0].reshape(N, -1)[:, :4] / 255, abs=1e-6)


def test_the_digest_follows_weights_and_code():
    torch.save(_trained(1).state_dict(), "one.pt")
    torch.save(_trained(2).state_dict(), "two.pt")
    first, again, other = (given.load(_named(NETWORK, weights=name), PICTURES).sha256 for name in ("one.pt", "one.pt", "two.pt"))
    described = given.load(_named(NETWORK, weights="one.pt"), PICTURES).describe()
    changed = given.load(_named(NETWORK + "\nA = 1\n", weights="one.pt"), PICTURES).sha256

    assert first == again == described["sha256"] and len({first, other, changed}) == 3
    assert described["form"] == "network (Sequential)" and described["device"] == "cpu" and described["n_weights"] == 3 * 45 + 5 + 10 + 324
    assert described["digests"].keys() == {"weights", "code"} and "torch" in described["versions"]


@pytest.mark.parametrize("form", ["safetensors", "a state dict"])
def test_the_kind_of_a_file_is_not_told_by_its_name(form):
    SAVED[form](_trained(), "model.onnx")

    assert weights.kind_of(Path("model.onnx")) == ("safetensors" if form == "safetensors" else "state dict")
