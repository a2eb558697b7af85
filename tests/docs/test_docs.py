"""The guide: every page builds without a warning, and every code block prints what it shows."""

import json
import subprocess
import sys

import pytest
from conftest import ROOT

from docs import scenarios
from lockstep import mistakes
from lockstep.optimizers.variants import VARIANTS

PAGES = [
    file.relative_to(ROOT)
    for file in sorted((ROOT / "docs").rglob("*.md"))
    if "```python" in file.read_text() or "```console" in file.read_text()
]
# Pages in one process share what they import, and what the porting pages train.
QUICK = ["zero_grad.md", "command.md"]
PORTING = [page for page in PAGES if "-to-" in page.name]
OTHERS = [page for page in PAGES if page.name not in QUICK and page not in PORTING]
TOGETHER = [
    *(pytest.param([page], id=page.name) for page in PAGES if page.name in QUICK),
    pytest.param(PORTING, marks=pytest.mark.slow, id="porting"),
    pytest.param(OTHERS, marks=pytest.mark.slow, id="the others"),
]


def test_the_guide_builds_without_a_warning(site) -> None:
    assert (site / "index.html").exists()
    for folder, names in {"mistakes": mistakes.names(), "optimizers": VARIANTS}.items():
        assert {f"{name}.html" for name in names} <= {
            file.name for file in (site / folder).iterdir()
        }


def test_no_page_shows_its_plumbing() -> None:
    """It stands in docs/demonstration.py."""
    assert len(PAGES) == len(QUICK) + len(PORTING) + len(OTHERS) >= 12
    plumbing = ("sys.path", "invalidate_caches", "import_module", "mistakes.plant(")
    texts = {page: (ROOT / page).read_text() for page in PAGES}
    assert not [(page, each) for page in PAGES for each in plumbing if each in texts[page]]


@pytest.mark.parametrize("pages", TOGETHER)
def test_pages_print_what_their_code_prints(pages) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "docs.blocks", *pages], capture_output=True, text=True, cwd=ROOT
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
