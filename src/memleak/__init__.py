"""memleak: what can someone learn about who was in the training data of this model?"""

from __future__ import annotations

from typing import Any

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """`memleak.audit` and `memleak.snakefile` without paying for their imports until they are used."""
    if name in ("audit", "Audit", "snakefile"):
        import importlib

        return getattr(importlib.import_module("memleak.pipeline"), name)
    raise AttributeError(f"module 'memleak' has no attribute '{name}'")
