"""The dependence of codebooks on a page."""

import json

from support.report_cases import check_page, codes

from indep_jax import dependence, report


def test_dependence_figure_says_the_numbers():
    measured = [dependence.measure_codes(label, codes(s)) for s, label in enumerate("ab")]
    figure = report.dependence.matrices(dependence.record(measured)["tokenizers"])
    texts = [text.get_text() for panel in figure.axes[:4] for text in panel.texts]
    assert len(texts) == 2 * 2 * 3
    assert texts[0].startswith(f"{measured[0].information.bits[0, 0]:.2f}")
    assert len({panel.images[0].get_clim() for panel in figure.axes[:4]}) == 1


def test_a_stored_record_gives_the_same_page(tmp_path):
    """Of tokenizers of 3 and of 2 codebooks, whose files are not comparable."""
    measured = [
        dependence.measure_codes("three", codes(0)),
        dependence.measure_codes("two", [file[:, :2] for file in codes(1, files=7)]),
    ]
    record = dependence.record(measured)
    assert record["changes"] == []
    pages = []
    for name, each in (("now", record), ("later", json.loads(json.dumps(record)))):
        page = report.Report("Dependence")
        report.dependence.show(page, each)
        pages.append(page.write(tmp_path / name).read_text())
    assert pages[0] == pages[1]
    read = check_page(tmp_path / "now" / "report.html")
    for item in measured:
        low, high = item.information.mean_interval_bits[0]
        assert f"{item.information.mean_bits[0]:.3f} [{low:.3f}, {high:.3f}]" in read.text
