"""What all tests share: one thread per process, no network, and the photographs beside the repository."""

import os
import signal
from pathlib import Path

import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("MPLBACKEND", "agg")

for number in (signal.SIGINT, signal.SIGHUP):  # a shell's background job or nohup ignores them, and tests send them
    if signal.getsignal(number) is signal.SIG_IGN:
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)

ROOT = Path(__file__).resolve().parent.parent
SHARED_DATA = ROOT.parent / "shared" / "data"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of real photographs for tests; they skip where it is absent."""
    if not SHARED_DATA.is_dir():
        pytest.skip(f"real photographs are not here ({SHARED_DATA.name} folder beside the repository)")
    return SHARED_DATA


def pytest_terminal_summary(terminalreporter) -> None:
    """Count how the hostile inputs of `tests/hostile` were answered, by class."""
    reports = [report for found in terminalreporter.stats.values() for report in found if hasattr(report, "when")]
    tried = [
        value
        for report in reports
        if report.when == "call"
        for key, value in report.user_properties
        if key == "hostile"
    ]
    if not tried:
        return
    answers = list(dict.fromkeys(answer for _, answer in tried))
    terminalreporter.section("hostile inputs")
    for kind in dict.fromkeys(kind for kind, _ in tried):
        own = [answer for other, answer in tried if other == kind]
        counts = ", ".join(f"{own.count(answer)} {answer}" for answer in answers if answer in own)
        terminalreporter.write_line(f"{kind}: {len(own)} tried, {counts}")
    totals = ", ".join(f"{sum(answer == one for _, one in tried)} {answer}" for answer in answers)
    terminalreporter.write_line(f"all: {len(tried)} tried, {totals}")
