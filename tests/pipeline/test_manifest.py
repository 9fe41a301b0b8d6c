"""Tables and pixels that prepare hands on."""

import csv
from pathlib import Path

import pytest

from meadow.pipeline.manifest import write_csv


@pytest.mark.parametrize(
    "text", ["a\rb", "a\nb", "a\r\nb", "\r", 'a"b', "a,b", " a ", "", "\u2028"]
)
def test_a_table_reads_back_as_it_was_written(text: str, tmp_path: Path) -> None:
    """Reader and writer of the standard library disagree about a bare CR."""
    records = [{"path": text, "detail": "x"}, {"path": "y", "detail": text}]
    write_csv(tmp_path / "table.csv", ["path", "detail"], records)
    with (tmp_path / "table.csv").open(encoding="utf-8", newline="") as file:
        assert list(csv.DictReader(file)) == records


def test_lines_end_with_lf(tmp_path: Path) -> None:
    """As Git shows them."""
    write_csv(tmp_path / "table.csv", ["path", "share"], [{"path": "1.jpg", "share": 1 / 3}])
    assert (tmp_path / "table.csv").read_bytes() == b"path,share\n1.jpg,0.33333333\n"
