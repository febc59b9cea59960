"""Signals: what a model says about a sample when it is asked."""
