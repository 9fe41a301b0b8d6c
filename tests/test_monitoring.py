"""What Prometheus, Alertmanager and Grafana read: checked by their tools, run against a service."""

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "deploy/monitoring"
PAGE = (ROOT / "docs/monitoring.md").read_text("utf-8")
RULES = yaml.safe_load((FOLDER / "rules.yml").read_text())["groups"]
ALERTS = [rule for group in RULES for rule in group["rules"] if "alert" in rule]
NAMES = sorted({alert["alert"] for alert in ALERTS})


def checked(*command: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.needs("Prometheus")
def test_their_own_tools_find_nothing_wrong() -> None:
    """Configuration, rules and routes."""
    for command in (
        ("promtool", "check", "config", "--lint-fatal", FOLDER / "prometheus.yml"),
        ("promtool", "check", "rules", "--lint-fatal", FOLDER / "rules.yml"),
        ("amtool", "check-config", FOLDER / "alertmanager.yml"),
        ("promtool", "test", "rules", ROOT / "tests/alerts.yml"),
    ):
        done = checked(*command)
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.needs("Prometheus")
@pytest.mark.parametrize("expression", ["vector(1)", "vector(1) < 0"], ids=["always", "never"])
def test_each_alert_is_seen_to_fire_and_not_to_fire(expression: str, tmp_path: Path) -> None:
    """One that always fires fails its tests, and so does one that never does."""
    groups: list[dict[str, Any]] = yaml.safe_load((FOLDER / "rules.yml").read_text())["groups"]
    for rule in (rule for group in groups for rule in group["rules"]):
        rule["expr"] = expression
    (tmp_path / "rules.yml").write_text(yaml.safe_dump({"groups": groups}))
    text = (ROOT / "tests/alerts.yml").read_text()
    (tmp_path / "alerts.yml").write_text(
        text.replace("../deploy/monitoring/rules.yml", str(tmp_path / "rules.yml"))
    )
    done = checked("promtool", "test", "rules", tmp_path / "alerts.yml")

    assert set(re.findall(r"alertname: (\w+)", done.stdout + done.stderr)) == {*NAMES}


def test_each_alert_has_a_runbook_and_each_runbook_an_alert() -> None:
    """With steps to follow."""
    sections = re.findall(r"^## (\w+)\n(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL)

    assert sorted(name for name, _ in sections) == NAMES
    for alert in ALERTS:
        anchor = f"docs/monitoring.md#{alert['alert'].lower()}"
        assert alert["annotations"]["runbook"] == anchor
        kind = "**Page" if alert["labels"]["severity"] == "page" else "**[Tt]icket"
        assert re.search(kind.replace("**", r"\*\*"), dict(sections)[alert["alert"]])
