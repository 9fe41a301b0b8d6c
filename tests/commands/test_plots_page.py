"""The page of `dvc plots`: it draws without a network, as the report does."""

import shutil
from pathlib import Path

import pytest
from browser import Browser
from clones import ROOT, runner

from meadow.commands import plots_page

CURVES = ["confusion", "roc", "reliability", "abstention", "log_loss"]


@pytest.mark.slow
def test_dvc_plots_draws_without_a_network(
    built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, browser: Browser
) -> None:
    """Every curve that dvc.yaml names is drawn, and nothing is asked of another host."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(built / "metrics", "metrics")
    shutil.copy(built / "params.yaml", ".")
    shutil.copy(ROOT / "dvc.yaml", ".")
    run = runner(tmp_path)
    run("dvc", "init", "-q", "--no-scm")
    plots_page.write()
    run("dvc", "plots", "show", "-o", "plots")
    page = Path("plots/index.html")

    with browser.visit(page, warned=True) as seen:
        seen.locator(".vega-embed svg.marks").nth(len(CURVES) - 1).wait_for()
    assert all(name in page.read_text("utf-8") for name in CURVES)
