"""The Colab notebook runs from top to bottom, at tiny settings."""

import pathlib

import nbclient
import nbformat

COLAB = pathlib.Path(__file__).parent.parent / "colab"


def test_quickstart_notebook_runs(tmp_path, monkeypatch):
    notebook = nbformat.read(COLAB / "quickstart.ipynb", as_version=4)
    install, *cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert install.source.startswith("%pip install")  # and is not run again here
    notebook.cells = cells
    monkeypatch.setenv("TINY", "1")
    monkeypatch.setenv("WORKDIR", str(tmp_path / "run"))
    nbclient.NotebookClient(
        notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": COLAB}}
    ).execute()
    printed = [o["text"] for c in cells for o in c.outputs if o.get("name") == "stdout"]
    assert "trained" in printed[-1] and "bits a pair" in printed[-1]
    sounds = [o for c in cells for o in c.outputs if "audio" in str(o.get("data", {}))]
    assert len(sounds) == 4
