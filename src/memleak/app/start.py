"""What `memleak app` gives Streamlit to run."""

from __future__ import annotations

if __name__ == "__main__":
    from memleak.app.window import show

    show()
