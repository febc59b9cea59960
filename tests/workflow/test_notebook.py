"""The demo notebook: its cells run, in order, and show what its text says; no outputs are committed."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import nbclient
import nbformat
import pytest

NOTEBOOK = Path(__file__).parents[2] / "examples/demo.ipynb"


def test_the_notebook_is_committed_without_outputs():
    cells = json.loads(NOTEBOOK.read_text())["cells"]

    assert len([cell for cell in cells if cell["cell_type"] == "code"]) >= 8
    assert [cell for cell in cells if cell.get("outputs") or cell.get("execution_count")] == []


def test_links_of_the_notebook_lead_to_files():
    text = "".join("".join(cell["source"]) for cell in json.loads(NOTEBOOK.read_text())["cells"] if cell["cell_type"] == "markdown")
    links = re.findall(r"\]\((?!http)([^)#]+)", text)

    assert links and [link for link in links if not (NOTEBOOK.parent / link).is_file()] == []


@pytest.mark.workflow
@pytest.mark.slow
def test_the_cells_show_what_the_text_says(tmp_path, monkeypatch):
    kernel = tmp_path / "jupyter/kernels/python3"  # of this environment, whatever is installed beside it
    kernel.mkdir(parents=True)
    command = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    (kernel / "kernel.json").write_text(json.dumps({"argv": command, "display_name": "Python 3", "language": "python"}))
    for name, path in (("JUPYTER_PATH", "jupyter"), ("JUPYTER_DATA_DIR", "jupyter"), ("JUPYTER_RUNTIME_DIR", "runtime"), ("IPYTHONDIR", "ipython")):
        monkeypatch.setenv(name, str(tmp_path / path))
    monkeypatch.delenv("MPLBACKEND", raising=False)  # figures are shown in the notebook

    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbclient.NotebookClient(notebook, timeout=600, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}).execute()

    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    said = "\n".join(output.get("text", "") or output.get("data", {}).get("text/plain", "") for output in outputs)
    assert (tmp_path / "demo/results/audits/demo/report.html").is_file()
    assert any("image/png" in output.get("data", {}) for output in outputs)
    assert all(name in said for name in ("lira", "rmia", "loss"))
    train, test = (float(share) for share in re.search(r"training records ([\d.]+)%, on others ([\d.]+)%", said).groups())
    assert train > 99 and test > 85
    held = int(re.search(r"(\d+) of 100 intervals hold it", said)[1])
    assert held >= 90
    assert "FPR 10.0%" in said and "certified: True" in said and "FPR 0.1%" in said and "certified: False" in said
