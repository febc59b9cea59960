"""What every page and the app begin with, as data: what was attacked and how, the controls as lights, what to do next."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Fact:
    """A line of the first screen, such as "Attacked": "64 models of recipe digits-cnn"; plain text, escaped by whoever shows it."""

    name: str
    words: str
    more: str = ""  # for those who want to know exactly


@dataclass(frozen=True)
class Light:
    """A control as a traffic light: `fine` and `alarm` were measured, `unknown` was not, or cannot be here."""

    name: str
    state: Literal["fine", "alarm", "unknown"]
    says: str  # at most a dozen words, such as "nothing found where nothing is (p 1.00)"
    detail: str  # the whole sentence, with what is tested, the figure and its interval


@dataclass(frozen=True)
class Action:
    """Something to do, with the measured figure that speaks for it, what to expect of it, and the command that shows whether it helped."""

    title: str
    because: str  # such as "LiRA recognises 6.8 % [5.9, 7.8] at FPR 1 %"
    effect: str  # what it may bring and what it costs
    command: str  # that audits again; several lines are several commands
