"""What stands in a report, of runs whose answers are known."""

from __future__ import annotations

import csv
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from advss.errors import UsageError
from advss.reports.compared import LOST, NONE_SHARED, OTHERS, compare, orders, summed
from advss.reports.document import Lines, Report, Section, Table
from advss.reports.formats import escaped, latex, markdown
from advss.reports.page import page
from advss.reports.reading import Cell, Comparison, Subject
from advss.reports.results import Against, counted
from advss.reports.subjects import of_runs
from advss.reports.write import report_of, write

Run = Callable[..., Path]
HALF = [True] * 10 + [False] * 10
MOST = [True] * 18 + [False] * 2
FEW = [False] * 10 + [True] * 2 + [False] * 8


def right(ta: list[bool], ra: list[bool]) -> dict[str, list[bool]]:
    return {"ta": ta, "ra": ra}


def table(report: Report, name: str) -> Table:
    blocks = [block for section in report.sections for block in section.blocks]
    return next(block for block in blocks if isinstance(block, Table) and block.name == name)


def lines(report: Report, title: str) -> list[str]:
    section: Section = next(section for section in report.sections if section.title == title)
    return [line for block in section.blocks if isinstance(block, Lines) for line in block.lines]


@pytest.fixture
def two(run: Run) -> Subject:
    """A, of two seeds, and B, of one, otherwise trained."""
    first, second = run("a0", right(MOST, HALF)), run("a1", right(MOST, FEW), seed=1)
    return of_runs([first, second, run("b", right(MOST, MOST), config={"finetune-lr": 0.2})], "two")


def test_runs_that_differ_in_their_seed_are_one_setting(two: Subject) -> None:
    assert {label: [cell.seed for cell in cells] for label, cells in two.settings.items()} == {"a0": [0, 1], "b": [0]}


def test_figures_of_a_setting_are_summed_over_seeds(two: Subject) -> None:
    column = next(column for column in two.columns if column.figure == "ra")
    found = summed(two.settings["a0"], column)
    assert found
    assert (found.values, found.count) == ({0: 0.5, 1: 0.1}, 20)
    assert found.mean == pytest.approx(0.3)
    assert found.sd == pytest.approx(0.08**0.5)


def test_results_are_told_with_both_intervals_and_state(two: Subject) -> None:
    found = table(report_of(two, Against()), "results")
    assert found.rows[1] == ["b", "done", "1 of 1", *["90.00", "–", "69.9 to 97.2"] * 2]
    assert found.rows[0][3:5] == ["90.00 ± 0.00", "90.0 to 90.0"]


def test_rows_are_compared_over_the_seeds_that_both_have(two: Subject) -> None:
    _, ra = two.columns[:2]
    found = compare(two.settings["b"], two.settings["a0"], ra)
    assert not isinstance(found, str)
    assert (found.seeds, found.only) == (1, (8, 0))
    assert found.difference == pytest.approx(0.4)
    row = table(report_of(two, Against()), "compared-2").rows[0]
    assert row[:3] == ["b", "above", "+40.00"]
    row = table(report_of(two, Against("best")), "compared-2").rows[0]
    assert row[:3] == ["a0", "below", "−40.00"]


def test_alike_rows_are_not_told_apart(two: Subject) -> None:
    assert table(report_of(two, Against()), "compared-1").rows[0][:3] == ["b", "not told apart", "+0.00"]


def test_rows_are_compared_within_groups(run: Run) -> None:
    folders = [
        run(f"{task}{lr}", right(MOST, HALF), config={"pretext": task, "finetune-lr": lr})
        for task in ("none", "rotation")
        for lr in (0.1, 0.2)
    ]
    report = report_of(of_runs(folders, "four"), Against(within="pretext"))
    assert [table(report, f"compared-{place}").rows[0][0] for place in (3, 4)] == ["none0.2", "rotation0.2"]


@pytest.mark.parametrize(
    ("said", "why"),
    [({"data": "e" * 64}, OTHERS), ({"first": 5}, OTHERS), ({"seed": 4}, NONE_SHARED)],
)
def test_what_cannot_be_compared_says_why(run: Run, said: dict[str, Any], why: str) -> None:
    pair = [run("a", right(MOST, HALF)), run("b", right(MOST, HALF), config={"finetune-lr": 0.2}, **said)]
    subject = of_runs(pair, "pair")
    assert compare(subject.settings["b"], subject.settings["a"], subject.columns[0]) == why
    assert table(report_of(subject, Against()), "compared-1").rows[0][1] == f"not compared: {why}"


def test_answers_that_are_not_those_counted_are_no_answers(run: Run) -> None:
    folders = [run("a", right(MOST, HALF)), run("b", right(MOST, HALF), config={"finetune-lr": 0.2})]
    next(folders[1].glob("evaluations/*.safetensors")).write_bytes(b"other")
    subject = of_runs(folders, "pair")
    assert compare(subject.settings["b"], subject.settings["a"], subject.columns[0]) == LOST
    assert table(report_of(subject, Against()), "results").rows[1][3:6] == ["90.00", "–", "–"]


def test_another_attack_is_another_column(run: Run, measured: Callable[..., dict[str, Any]]) -> None:
    folder = run("a", right(MOST, HALF), ece=0.25)
    measured(folder, right(MOST, FEW), options={"eps": 0.2})
    subject = of_runs([folder], "one")
    assert sorted(subject.titles.values()) == ["PGD-20 ℓ∞ 0.1, eps 0.1", "PGD-20 ℓ∞ 0.1, eps 0.2"]
    report = report_of(subject, Against())
    assert table(report, "measured-1").rows[0][1:4] == ["ECE", "1", "0.25"]
    assert [row[1:4] for row in table(report, "measured-2").rows] == [["TA", "1", "90.00"], ["RA", "1", "10.00"]]


def test_the_papers_orderings_are_counted(two: Subject) -> None:
    paper = {"rows": {"a0": {"ta": 80, "ra": 60}, "b": {"ta": 85, "ra": 50}, "c": {"ra": 1}}, "source": "a paper"}
    subject = replace(two, published=paper)
    assert [order.verdict for order in orders(subject, "ta")] == ["not told apart"]
    assert [(order.upper, order.verdict) for order in orders(subject, "ra")] == [("a0", "disagree")]
    said = counted("ra", list(orders(subject, "ra")))
    assert said.startswith("RA: of 1 pair of rows that the paper has in an order, ours agree in 0, disagree in 1, and")
    row = table(report_of(subject, Against()), "published").rows[1]
    assert row == ["b", "85.00", "90.00", "+5.00", "50.00", "90.00", "+40.00"]


def test_epochs_and_seconds_are_told(two: Subject) -> None:
    assert table(report_of(two, Against()), "cost").rows[1] == ["b", "2", "3", "2", "3", "–", "–", "8", "–"]


def test_settings_that_differ_are_told_alone(two: Subject) -> None:
    found = table(report_of(two, Against()), "settings")
    assert [*found.headings, *map(list, found.rows)] == ["row", "finetune-lr", ["a0", "0.1"], ["b", "0.2"]]


def test_what_failed_stands_in_the_tables_and_warnings(two: Subject, tmp_path: Path) -> None:
    log = tmp_path / "log.txt"
    log.write_text("finetune\nadvss: warning: MLflow is slow\n")
    cells = [*two.cells, Cell("c", 0, "failed", "out of memory"), Cell("d", 0, "waiting")]
    report = report_of(replace(two, cells=cells, logs={"run": log}), Against())
    assert [row[:2] for row in table(report, "results").rows[2:]] == [["c", "failed: out of memory"], ["d", "waiting"]]
    assert table(report, "results").rows[3][3:] == ["–"] * 6
    assert lines(report, "Warnings") == [
        "c, seed 0: failed: out of memory",
        "d, seed 0: waiting",
        "run: MLflow is slow",
    ]


def test_doubts_and_notes_are_warnings(run: Run) -> None:
    folder = run("a", right(MOST, HALF), result={"doubt": "no better than chance"}, notes=["gradients are masked"])
    assert lines(report_of(of_runs([folder], "one"), Against()), "Warnings") == [
        "a, seed 0: no better than chance",
        "a, seed 0: PGD-20 ℓ∞ 0.1: gradients are masked",
    ]


def test_transfer_is_the_mean_over_seeds_beside_the_papers(two: Subject, tmp_path: Path) -> None:
    compared = []
    for seed, rate in ((0, 0.2), (1, 0.4)):
        place = tmp_path / f"t{seed}"
        place.mkdir()
        (place / "transfer.json").write_text(
            f'{{"models": ["x", "y"], "runs": [], "attack": {{"title": "PGD"}}, "asr": [[1, {rate}], [0, 1]], '
            '"error": [0.1, 0.1], "both_right": [[2, 1], [1, 2]], "asr_both_right": [[1, null], [0, 1]], '
            '"all_right": [], "overlap": {"x": {"others_right": {"union": 0, "regions": [], "not_shared": null}}, '
            '"y": {"others_right": {"union": 0, "regions": [], "not_shared": null}}}}'
        )
        compared.append(Comparison("table", seed, "done", place, ("A", "B")))
    paper = {"transfers": {"table": [[50, 20], [18, 48]]}}
    report = report_of(replace(two, comparisons=compared, published=paper), Against())
    assert table(report, "transfer-1").rows[0] == ["A", "100.00", "30.00", "10.00"]
    assert table(report, "transfer-1-right").rows[0] == ["A", "100.00 % of 2", "– of 1"]
    assert table(report, "transfer-1-paper").rows[0] == ["A", "50.00 / 100.00", "20.00 / 30.00"]


def test_the_page_holds_all_and_fetches_nothing(two: Subject, tmp_path: Path) -> None:
    files = write(replace(two, name="<b>&"), Against(), tmp_path / "out")
    assert [path.name for path in files[:4]] == ["report.html", "report.md", "report.csv", "report.tex"]
    text = files[0].read_text()
    assert "<b>&" not in text
    assert text.count("<svg") == 2
    assert not re.findall(r"<script|(?:src|href)=\"(?!#)|@import|url\((?!#)", text)
    ids = re.findall(r'\bid="([^"]+)"', text)
    assert len(ids) == len(set(ids))
    assert {*re.findall(r'(?:href="#|url\(#)([^")]+)', text)} <= {*ids}
    assert {path.suffix for path in files[4:]} == {".svg", ".pdf"}
    assert all(path.read_bytes()[:4] == b"%PDF" for path in files if path.suffix == ".pdf")


def test_the_same_results_give_the_same_files(two: Subject, tmp_path: Path) -> None:
    one, other = (write(two, Against(), tmp_path / name) for name in ("one", "other"))
    assert [path.read_bytes() for path in one] == [path.read_bytes() for path in other]


def test_csv_has_full_precision(two: Subject, tmp_path: Path) -> None:
    with write(two, Against(), tmp_path / "out")[2].open() as file:
        rows = list(csv.DictReader(file))
    assert (rows[1]["setting"], rows[1]["figure"], rows[1]["values"]) == ("a0", "ra", "0:0.5 1:0.1")
    assert (rows[1]["seeds"], rows[1]["images"]) == ("2", "20")
    assert float(rows[1]["mean"]) == pytest.approx(0.3)


def test_latex_is_escaped_and_as_many_columns_as_headings() -> None:
    block = Table("t", "50 % of a_b", ("row", "±"), [("a&b", "1"), ("ℓ∞", "−2")])
    text = latex(Report("r", [], [Section("s", [block])]))
    assert r"\caption{50 \% of a\_b}" in text
    assert r"a\&b & 1 \\" in text
    assert r"\begin{tabular}{lr}" in text
    assert escaped("ℓ∞ −2") == r"$\ell$$\infty$ $-$2"


def test_latex_breaks_what_is_longer_than_a_page_or_wider_than_a_line() -> None:
    long = Table("long", "c", ("row", "n"), [(str(row), "1") for row in range(50)])
    wide = Table("wide", "c", ("what", "said"), [("plugins", "many words " * 20)], left=2)
    text = latex(Report("r", [], [Section("s", [long, wide])]))
    assert "\\begin{longtable}{lr}\n\\caption{c}\\label{long}\\\\\n\\toprule" in text
    assert r"\begin{tabular}{lp{0.7\linewidth}}" in text


def test_markdown_cells_end_where_they_should() -> None:
    text = markdown(Report("r", [], [Section("s", [Table("t", "c", ("|cos|",), [("<b>",)])])]))
    assert r"| \|cos\| |" in text
    assert r"| \<b> |" in text


def test_cells_of_a_page_are_text() -> None:
    assert "&lt;script&gt;" in page(Report("r", [], [Section("s", [Table("t", "c", ("h",), [("<script>",)])])]))


def test_nothing_measured_is_an_error_that_says_so(run: Run) -> None:
    subject = of_runs([run("a"), run("b", seed=1, result={"status": "begun"})], "pair")
    with pytest.raises(UsageError, match=r"nothing of pair is measured yet \(1 done, 1 interrupted\)"):
        report_of(subject, Against())


@pytest.mark.parametrize(
    ("against", "said"),
    [
        (Against("bset"), "--against: there is no row 'bset'; did you mean 'best'"),
        (Against(within="finetune_lr"), "--within: no row has a 'finetune_lr'; did you mean 'finetune-lr'"),
    ],
)
def test_rows_and_columns_that_are_not_there(two: Subject, against: Against, said: str) -> None:
    with pytest.raises(UsageError, match=re.escape(said)):
        report_of(two, against)


def test_a_run_goes_on_from_the_one_beside_it_or_from_none(run: Run, tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("pretext: none\n")  # nobody's, where the command is given
    before = run("p")
    moved = "/gone/runs/p/pretrain/best.safetensors"
    tuned = run("f", right(MOST, HALF), result={"command": "finetune", "source": moved}, config={"finetune-lr": 0.3})
    one, other = of_runs([tuned, run("s", right(MOST, HALF))], "pair").cells
    assert one.pretraining
    assert one.pretraining.path == before
    assert other.pretraining is None
