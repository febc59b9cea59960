"""The sources that a page names: those of what it used, each with a title, and of nothing else."""

from __future__ import annotations

import copy

from memleak.report import citations


def test_every_attack_is_named_after_a_source_that_is_known():
    named = {key for keys in citations.OF_ATTACK.values() for key in keys} | set(citations.OF_TESTER.values())

    assert named <= set(citations.KNOWN)


def test_a_title_is_a_title_and_no_address():
    for one in citations.KNOWN.values():
        assert "arXiv" not in one.title and len(one.title.split()) > 2 and str(one.year) in one.key, one


def test_a_page_names_what_it_used_and_nothing_else(pool_walk, walk):
    metrics = copy.deepcopy(pool_walk.metrics)
    pools, pairs = ({one.key for one in citations.of(found)} for found in (metrics, walk.metrics))
    metrics["exposure"] = None

    assert "carlini-2022" in pools and "cameron-2011" in pools and "fisher-1935" not in pools
    assert {"fisher-1935", "clopper-1934", "holm-1979"} <= pairs and "cameron-2011" not in pairs
    assert "benjamini-1995" not in {one.key for one in citations.of(metrics)}
