"""The Colab notebook runs from top to bottom, at tiny settings."""

import importlib.metadata
import pathlib

import nbclient
import nbformat

COLAB = pathlib.Path(__file__).parent.parent / "colab"
TINY = """
workdir = pathlib.Path("run")
config.model.update(n_filters=2, ratios=(16, 20), dimension=4, lstm_layers=1)
config.quantizer.update(codebook_size=8, warmup_steps=0, kmeans_batches=1)
config.discriminator.update(filters=2, n_ffts=(128,))
config.loss.independence.warmup_steps = config.optimizer.warmup_steps = 0
config.update(
    steps=2, batch_size=2, log_every=1, evaluate_every=2, evaluate_items=1, evaluate_seconds=1.0
)
"""


def test_quickstart_notebook_runs(tmp_path):
    importlib.metadata.version("indep_jax")  # else the first cell would install it
    notebook = nbformat.read(COLAB / "quickstart.ipynb", as_version=4)
    loads = [n for n, cell in enumerate(notebook.cells) if "configs.load(" in cell.source]
    notebook.cells.insert(loads[0] + 1, nbformat.v4.new_code_cell(TINY))
    nbclient.NotebookClient(
        notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": tmp_path}}
    ).execute()
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    printed = [
        "".join(o["text"] for o in cell.outputs if o.get("name") == "stdout") for cell in cells
    ]
    assert f"jax {importlib.metadata.version('jax')} \n" in printed[0]
    assert "in place of" not in printed[0]
    assert [line.split()[0] for line in printed[-1].splitlines()] == ["untrained", "run"]
    assert printed[-1].count("bits a pair") == 2
    sounds = [o for c in cells for o in c.outputs if "audio" in str(o.get("data", {}))]
    assert len(sounds) == 4
