"""MembershipTester: the walk of a whole audit for one language model, or classifier of texts, and two lists of texts."""

from __future__ import annotations

from memleak.tester.report import AttackReport
from memleak.tester.tester import MembershipTester

__all__ = ["AttackReport", "MembershipTester"]
