"""Metrics: what scores are worth once the truth is known, every number with its interval."""
