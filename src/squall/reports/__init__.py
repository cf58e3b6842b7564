"""What people and build servers read of a run: HTML, Markdown, JUnit XML, JSON and the terminal's summary.

`load_run` reads a run's folder alone into a `RunRecord`; each format is one pure function of that record, in a file of
its own. Works for every run: aborted, interrupted, or cut off in mid-line. Nothing in here judges or measures.
"""

from squall.reports.comparison import TwoRuns, compare_runs, comparison_to_markdown, comparison_to_text
from squall.reports.html import to_html
from squall.reports.html.side_by_side import comparison_to_html
from squall.reports.json_format import to_json
from squall.reports.junit import to_junit
from squall.reports.loading import load_run
from squall.reports.markdown import to_markdown
from squall.reports.record import RunRecord
from squall.reports.terminal import summary, to_text
from squall.reports.writing import FORMATS, Format, render, write_reports

__all__ = [
    "FORMATS",
    "Format",
    "RunRecord",
    "TwoRuns",
    "compare_runs",
    "comparison_to_html",
    "comparison_to_markdown",
    "comparison_to_text",
    "load_run",
    "render",
    "summary",
    "to_html",
    "to_json",
    "to_junit",
    "to_markdown",
    "to_text",
    "write_reports",
]
