from pathlib import Path

import pytest

from meadow.pipeline import atomic, provenance


@pytest.mark.parametrize("file", [provenance.FIGURES, provenance.VERDICT])
def test_figures_are_shown_of_the_model_that_they_are_of_alone(tmp_path: Path, file: Path) -> None:
    """Not after `dvc repro train` alone, nor after `git checkout` without `dvc checkout`."""
    assert provenance.read(tmp_path, file, "abc") is None
    atomic.write_json(tmp_path / file, {"accuracy": 0.9})
    assert provenance.read(tmp_path, file, "abc") is None

    digest = provenance.sha256(tmp_path / file).popitem()[1]
    known = {provenance.MODEL: "abc", f"SHA-256 of {file.as_posix()}": digest}
    atomic.write_json(tmp_path / provenance.FILE, known)
    assert provenance.read(tmp_path, file, "abc") == {"accuracy": 0.9}
    assert provenance.read(tmp_path, file, "other model") is None

    atomic.write_json(tmp_path / file, {"accuracy": 0.8})
    assert provenance.read(tmp_path, file, "abc") is None


def test_figures_of_before_hashes_were_kept_are_not_shown(tmp_path: Path) -> None:
    """Meadow 0.1 named the model, and not its figures."""
    atomic.write_json(tmp_path / provenance.FIGURES, {"accuracy": 0.9})
    atomic.write_json(tmp_path / provenance.FILE, {provenance.MODEL: "abc"})

    assert provenance.read(tmp_path, provenance.FIGURES, "abc") is None
