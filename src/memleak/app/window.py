"""The frame of the app: its pages, and whose results they show."""

from __future__ import annotations

import importlib
from collections.abc import Callable

import streamlit as st

from memleak.app import read, style

PAGES = {  # the module with its `page()`: title and icon; the name in the address is the module's
    "browse": ("Audits", ":material/fact_check:"),
    "compare": ("Compare", ":material/compare_arrows:"),
    "record": ("Records", ":material/person_search:"),
    "ask": ("Test a model", ":material/science:"),
    "scores": ("Scores", ":material/query_stats:"),
}


def show() -> None:
    """Draw the app: what `streamlit run app.py` calls."""
    st.set_page_config(page_title="memleak", page_icon=style.icon(), layout="wide")
    style.sheet()
    pages = [st.Page(_page(module), title=title, icon=icon, url_path=module, default=module == "browse") for module, (title, icon) in PAGES.items()]
    chosen = st.navigation(pages)
    _project()
    chosen.run()


def _page(module: str) -> Callable[[], None]:
    """A page that is imported when somebody opens it: the audits need no torch."""
    return lambda: importlib.import_module(f"memleak.app.{module}").page()


def _project() -> None:
    """Which project is looked at, where the folder of the app holds several."""
    found = read.projects()
    with st.sidebar:
        if len(found) > 1:
            st.selectbox(
                "Project",
                found,
                format_func=lambda name: "this folder" if name == read.HERE else name,
                key="project",
                bind="query-params",
                persist_state="session",
                help="Folders with results below this one.",
            )
        st.caption("Everything stays on this machine.")
