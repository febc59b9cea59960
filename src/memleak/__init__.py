"""memleak: what can someone learn about who was in the training data of this model?"""

from __future__ import annotations

from typing import Any

__version__ = "0.2.0"
_WHERE = {
    "audit": "memleak.pipeline", "Audit": "memleak.pipeline", "snakefile": "memleak.pipeline",
    "MembershipTester": "memleak.tester", "AttackReport": "memleak.tester",
}  # fmt: skip


def __getattr__(name: str) -> Any:
    """`memleak.audit`, `memleak.MembershipTester` and others without paying for their imports until they are used."""
    if name in _WHERE:
        import importlib

        return getattr(importlib.import_module(_WHERE[name]), name)
    raise AttributeError(f"module 'memleak' has no attribute '{name}'")
