"""What people and build servers read of a run: HTML, Markdown, JUnit XML, JSON and the terminal's summary.

`load_run` reads a run's folder alone into a `RunRecord`; each format is one pure function of that record, in a file of
its own. Works for every run: aborted, interrupted, or cut off in mid-line. Nothing in here judges or measures.
"""

from squall.reports.html import to_html
from squall.reports.json_format import to_json
from squall.reports.junit import to_junit
from squall.reports.loading import load_run
from squall.reports.markdown import to_markdown
from squall.reports.record import RunRecord
from squall.reports.summary import print_summary, to_text
from squall.reports.two_runs import TwoRuns, compare_runs
from squall.reports.writing import FORMATS, Format, render, write_record, write_reports

__all__ = [
    "FORMATS",
    "Format",
    "RunRecord",
    "TwoRuns",
    "compare_runs",
    "load_run",
    "print_summary",
    "render",
    "to_html",
    "to_json",
    "to_junit",
    "to_markdown",
    "to_text",
    "write_record",
    "write_reports",
]
