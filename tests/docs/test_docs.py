"""The guide: every page builds without a warning, and every code block prints what it shows."""

import json
import subprocess
import sys

import pytest
from conftest import ROOT

from docs import scenarios
from lockstep import mistakes
from lockstep.optimizers.variants import VARIANTS

# All but the first of those that train in several frameworks are slow.
QUICK = ("zero_grad.md", "command.md")
PAGES = [
    pytest.param(
        file.relative_to(ROOT), marks=[] if file.name in QUICK else pytest.mark.slow, id=file.name
    )
    for file in sorted((ROOT / "docs").rglob("*.md"))
    if "```python" in file.read_text() or "```console" in file.read_text()
]


def test_the_guide_builds_without_a_warning(site) -> None:
    assert (site / "index.html").exists()
    for folder, names in {"mistakes": mistakes.names(), "optimizers": VARIANTS}.items():
        assert {f"{name}.html" for name in names} <= {
            file.name for file in (site / folder).iterdir()
        }


def test_no_page_shows_its_plumbing() -> None:
    """It stands in docs/demonstration.py."""
    pages = [ROOT / page.values[0] for page in PAGES]
    assert len(pages) >= 12
    plumbing = ("sys.path", "invalidate_caches", "import_module", "mistakes.plant(")
    assert not [(page, each) for page in pages for each in plumbing if each in page.read_text()]


@pytest.mark.parametrize("page", PAGES)
def test_a_page_prints_what_its_code_prints(page) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "docs.blocks", page], capture_output=True, text=True, cwd=ROOT
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_scenarios_are_recorded_as_they_run_now(all_workers) -> None:
    recorded = json.loads(scenarios.FILE.read_text())
    assert recorded["scenarios"] == json.loads(json.dumps(scenarios.record(all_workers)))
    for framework, worker in all_workers.items():
        # A wheel may say for which machine it was built: 2.13.0+cpu.
        installed = {name: version.partition("+")[0] for name, version in worker.ready().items()}
        assert recorded["versions"][framework] == installed
    for each in recorded["scenarios"].values():
        # The numbers are exact, so that every framework has the oracle's bits.
        assert all(run == each["parameters"]["oracle"] for run in each["parameters"].values())
        assert len(each["parameters"]["oracle"]) == len(each["windows"]) == 6
