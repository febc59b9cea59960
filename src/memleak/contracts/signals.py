"""The laws of a signal of the user's: one number of each record, about that record alone, higher for what was trained on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from pydantic import BaseModel, ValidationError

from memleak import plugins, randomness
from memleak.attacks.estimate import turned
from memleak.contracts import Finding, judged
from memleak.metrics import roc
from memleak.params import ParamsError, plugin_options, sentences
from memleak.signals import Asked, SignalError

N_RECORDS = 80  # half of which the made-up network knows by heart
N_STEPS = 300
TOLERANCE = 1e-4  # of the largest value: by so much float32 may differ for another batch size


@dataclass
class World:
    """A small network that was trained on half of the records until it knew them, and how often it was asked."""

    network: torch.nn.Module
    inputs: np.ndarray  # [n, H, W, C] uint8 or [n, F] float32
    label: np.ndarray  # [n]
    is_member: np.ndarray  # [n]
    n_queries: int = 0

    def given(self, inputs: np.ndarray) -> torch.Tensor:
        """Stored inputs as the network takes them."""
        values = torch.from_numpy(np.asarray(inputs, dtype=np.float32)).flatten(1)
        return (values - 128) / 64 if self.inputs.dtype == np.uint8 else values

    def answer(self, inputs: np.ndarray) -> np.ndarray:
        self.n_queries += len(inputs)
        with torch.no_grad():
            return self.network(self.given(inputs)).double().numpy()

    def asked(self, rows: np.ndarray, is_black_box: bool = False) -> Asked:
        """Some of the records, as a signal is given them."""
        logits = self.answer(self.inputs[rows])
        network, given = (None, None) if is_black_box else (self.network, self.given)
        return Asked(self.inputs[rows].copy(), self.label[rows].copy(), rows.copy(), logits, self.answer, network, given)


def made(shape: tuple[int, ...], n_classes: int) -> World:
    """Noise and labels drawn by coins: nothing can be learnt but which records were there."""
    draw = randomness.generator(0, "check signals")
    inputs = (
        draw.integers(0, 256, (N_RECORDS, *shape)).astype(np.uint8) if len(shape) == 3 else draw.normal(0, 1, (N_RECORDS, *shape)).astype(np.float32)
    )
    label = draw.integers(0, n_classes, N_RECORDS)
    is_member = draw.permutation(N_RECORDS) < N_RECORDS // 2
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = torch.nn.Sequential(torch.nn.Linear(int(np.prod(shape)), 32), torch.nn.ReLU(), torch.nn.Linear(32, n_classes))
        world = World(network, inputs, label, is_member)
        optimiser = torch.optim.Adam(network.parameters(), lr=0.01)
        members, truth = world.given(inputs[is_member]), torch.from_numpy(label[is_member])
        for _ in range(N_STEPS):
            optimiser.zero_grad()
            torch.nn.functional.cross_entropy(network(members), truth).backward()
            optimiser.step()
    optimiser.zero_grad()
    network.eval()
    return world


def check(name: str, options: Mapping[str, Any], shape: tuple[int, ...], n_classes: int) -> Iterator[Finding]:
    """The laws, one after the other; after a first measurement that fails nothing else is tried."""
    if not hasattr(plugins.module_of("signals", name), "Options"):
        raise SignalError(
            f"{name}: beside the function its module has no `class Options(memleak.params.Frozen)`; add one, empty if there are no options"
        )
    try:
        validated = plugin_options("signals", {"name": name, **options})
    except ValidationError as error:
        raise ParamsError("\n".join(f"{name}: {line}" for line in sentences(error))) from None
    yield from _laws(name, validated, made(shape, n_classes))


def _laws(name: str, options: BaseModel, world: World) -> Iterator[Finding]:
    function, everything = plugins.function_of("signals", name), np.arange(N_RECORDS)
    found: list[np.ndarray] = []
    n_asked: list[int] = []
    most = getattr(options, "queries", None)

    def measured(rows: np.ndarray, is_black_box: bool = False) -> np.ndarray:
        asked = world.asked(rows, is_black_box)
        before = world.n_queries
        values = function(asked, options)
        n_asked.append(world.n_queries - before)
        return _checked(values, len(rows))

    def gives_numbers() -> str:
        found.append(measured(everything))
        return ""

    def again() -> str:
        differing = _unlike(measured(everything), found[0])
        return differing and f"{differing} the second time; draw from memleak.randomness by sample_id, and keep nothing between calls"

    def order() -> str:
        rows = randomness.generator(1, "check signals").permutation(N_RECORDS)
        differing = _unlike(measured(rows), found[0][rows])
        return differing and f"{differing} once they are in another order; draw by sample_id, not by place"

    def alone() -> str:
        rows = everything[::16]
        differing = _unlike(np.concatenate([measured(np.array([row])) for row in rows]), found[0][rows])
        return differing and f"{differing} once they are measured by themselves; a value belongs to its record and its model, not to those beside it"

    def few_queries() -> str:
        per_record = n_asked[0] / N_RECORDS
        if most is None:
            return (
                f"{per_record:g} queries a record were made; let its Options say the most, as `queries: int`, so that they are bounded"
                if per_record
                else ""
            )
        return f"{per_record:g} queries a record were made, queries says {most} at most" if per_record > most else ""

    def stays() -> str:
        asked, weights = world.asked(everything), [value.clone() for value in world.network.state_dict().values()]
        kept = [np.array(part) for part in (asked.inputs, asked.label, asked.sample_id, asked.logits)]
        function(asked, options)
        if not all(np.array_equal(one, other) for one, other in zip(kept, (asked.inputs, asked.label, asked.sample_id, asked.logits), strict=True)):
            return "the arrays of `asked` were written to; copy them first"
        changed = any(not torch.equal(one, other) for one, other in zip(weights, world.network.state_dict().values(), strict=True))
        return "the weights of the network were changed, and other signals read them" if changed else ""

    def black_box() -> str:
        try:
            measured(everything[:4], is_black_box=True)
        except Exception as error:  # the user's code: whatever it says, it does not measure
            return f"it cannot be measured through a release, nor of a model that is only asked ({str(error).partition(chr(10))[0]})"
        return ""

    def sign() -> str:
        auc = roc.auc(turned(found[0].astype(np.float64), name), world.is_member)  # of ours some fall for members, which attacks know
        return (
            f"the AUC is {auc:.2f} of a network that knows its members by heart; turn the sign: higher means more likely a member"
            if auc < 0.4
            else ""
        )

    def finds() -> str:
        auc = roc.auc(turned(found[0].astype(np.float64), name), world.is_member)
        return f"the AUC is {auc:.2f} of a network that knows its members by heart" if 0.4 <= auc < 0.6 else ""

    first = judged("it gives one finite number for each record", gives_numbers)
    yield first
    if first.state == "broken":
        return
    repeated = judged("the same records have the same values", again)
    yield repeated
    if repeated.state == "kept":  # otherwise they differ for that alone
        yield judged("the order of the records changes nothing", order)
        yield judged("a record's value does not depend on those beside it", alone)
    yield judged("its queries are bounded", few_queries, "broken" if most is not None else "doubtful")
    yield judged("what it is given stays as it was", stays)
    yield judged("it needs no more than answers", black_box, "doubtful")
    yield judged("higher means more likely a member", sign, "doubtful")
    yield judged("it tells members of an overfitted network", finds, "doubtful")


def _checked(values: Any, n: int) -> np.ndarray:
    """The values of a signal. Raises SignalError where they are not one finite number a record."""
    found = np.asarray(values, dtype=np.float32)
    if found.shape != (n,):
        raise SignalError(f"it gave shape {found.shape}, expected ({n},)")
    if not np.isfinite(found).all():
        raise SignalError(f"{int((~np.isfinite(found)).sum())} of {n} values are NaN or infinite")
    return found


def _unlike(one: np.ndarray, other: np.ndarray) -> str:
    """How many values differ by more than rounding; '' where none does."""
    difference = np.abs(one.astype(np.float64) - other)
    n = int((difference > TOLERANCE * max(1e-30, np.abs(other).max())).sum())
    return f"{n} of {len(one)} values differ, by up to {difference.max():.2g}," if n else ""
