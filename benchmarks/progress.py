"""A progress bar in place of pytest's own lines, and what went wrong after it."""

import pytest
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)


class Bar:
    """A pytest plugin; ``title`` stands before the bar."""

    def __init__(self, title: str):
        self._console = Console()
        self._bar = Progress(
            TextColumn(title),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            TextColumn("{task.description}"),
            console=self._console,
        )
        self._task = None
        self.left_out: list[str] = []  # cases that were skipped or failed, and why

    def pytest_collection_finish(self, session):
        if session.items:
            self._task = self._bar.add_task("", total=len(session.items))
            self._bar.start()

    def pytest_runtest_logstart(self, nodeid, location):
        self._bar.update(self._task, description=nodeid.partition("::")[2])

    def pytest_runtest_logreport(self, report):
        if report.failed:
            self._bar.console.print(f"failed: {report.nodeid}\n{report.longreprtext}")
            self.left_out.append(f"{report.nodeid.partition('::')[2]} (failed)")
        elif report.skipped:
            why = report.longrepr[-1].removeprefix("Skipped: ")
            self._bar.console.print(f"skipped: {report.nodeid}: {why}")
            self.left_out.append(f"{report.nodeid.partition('::')[2]} ({why})")

    def pytest_runtest_logfinish(self, nodeid, location):
        self._bar.advance(self._task)

    @pytest.hookimpl(tryfirst=True)
    def pytest_report_teststatus(self, report):
        return report.outcome, "", ""

    def pytest_sessionfinish(self):
        if self._task is not None:
            self._bar.update(self._task, description="")
            self._bar.stop()
