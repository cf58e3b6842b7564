"""The table of docs/reference/beside-other-libraries.md: all rows, and how a cell comes about.

`python -m tests.rivals.features` prints the table as it is seen now, `... --write` puts it into the page, `... --json`
is for the test.
"""

from __future__ import annotations

import json
import logging
import subprocess
import sys
import warnings
from pathlib import Path

from tests.rivals.surface import names_with
from tests.rivals.verdicts import ABSENT, LIBRARIES, NO, Row, Verdict, versions

__all__ = ["BEGIN", "END", "IMPORT_TITLE", "PAGE", "all_rows", "cell", "import_seconds", "render"]

PAGE = Path(__file__).resolve().parents[2] / "docs/reference/beside-other-libraries.md"
BEGIN, END = "<!-- table: begins -->\n", "<!-- table: ends -->\n"
IMPORT_TITLE = "import, beyond asyncio (ms)"

KINDS = {
    "breaker": (("breaker", "circuit"), set()),
    "retry": (("retry", "retries", "retrying"), {"retry_backoff", "retry_backoff_max", "retry_jitter"}),
    "timeout": (
        ("timeout", "timelimit"),
        {
            "reset_timeout",  # pybreaker: how long it stays open
            "recovery_timeout",  # circuitbreaker: the same
            "RECOVERY_TIMEOUT",
            "timeout",  # stamina: for all attempts together; tenacity: of a wait
        },
    ),
    "bulkhead": (("bulkhead", "maxconcurren"), set()),
    "rate limit": (("ratelimit", "tokenbucket", "leaky"), set()),
}
"""By what a pattern is called where there is one, and the names that mean something else."""


def all_rows() -> list[tuple[str, list[Row]]]:
    """The rows, in groups."""
    from tests.rivals import around_rows, breaker_rows, limit_rows, rare_rows, retry_rows, whole_rows

    return [
        ("Circuit breakers", breaker_rows.ROWS),
        ("Retries", retry_rows.ROWS),
        ("Limits", limit_rows.ROWS),
        ("Substitutes and rare patterns", rare_rows.ROWS),
        ("Servers, clients, stores", around_rows.ROWS),
        ("The whole", whole_rows.ROWS),
    ]


def cell(row: Row, library: str, of_the_kind: set[str]) -> Verdict:
    """What is seen of this feature in this library. Raises LookupError where nothing was run and a name speaks for it."""
    if library in row.checks:
        return row.checks[library]()
    if row.kind and library not in of_the_kind:
        words, others = KINDS[row.kind]
        found = names_with(LIBRARIES[library], words) - others
        if found:
            raise LookupError(f"{library} seems to have a {row.kind}: {sorted(found)}")
        return ABSENT
    if not row.words:
        raise LookupError(f"nothing says why {library} has not: {row.title}")
    found = names_with(LIBRARIES[library], row.words) - set(row.explained)
    if found:
        raise LookupError(f"{library} seems to have it ({row.title}): {sorted(found)}")
    return NO


def all_cells() -> dict[str, dict[str, Verdict]]:
    """Every cell of the table, by title and library."""
    kinds: dict[str, set[str]] = {}
    rows = [row for _, group in all_rows() for row in group]
    for row in rows:
        if row.kind:
            kinds.setdefault(row.kind, set()).update(row.checks)
    return {
        row.title: {library: cell(row, library, kinds.get(row.kind, set())) for library in LIBRARIES} for row in rows
    }


USED = {
    "squall-resilience": "from squall_resilience import CircuitBreaker",
    "hyx": "import hyx.circuitbreaker",
    "limits": "import limits, limits.storage, limits.strategies",
}
"""What one would import for a breaker, or else for what the library is for, where it is not the library's own name."""


def import_seconds(library: str) -> float:
    """How long the import takes in a fresh interpreter that has asyncio: the best of three."""
    code = "import asyncio, time; began = time.perf_counter(); {0}; print(time.perf_counter() - began)"
    code = code.format(USED.get(library, f"import {LIBRARIES[library]}"))
    runs = [
        subprocess.run(
            [sys.executable, "-W", "ignore", "-c", code],
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
        )
        for _ in range(3)
    ]
    return min(float(run.stdout) for run in runs)


def render(cells: dict[str, dict[str, Verdict]], imports: dict[str, str]) -> str:
    """The table as Markdown, one for each group of rows, with its notes under it."""
    lines: list[str] = []
    known = versions()
    for name, rows in all_rows():
        lines += [f"## {name}", "", f"| | {' | '.join(LIBRARIES)} |", f"|---|{'---|' * len(LIBRARIES)}"]
        notes: dict[str, list[str]] = {}
        for row in rows:
            shown = []
            for library, verdict in cells[row.title].items():
                mark = ""
                if verdict.note:
                    of = notes.setdefault(verdict.note, [])
                    of += () if library in of else [library]
                    mark = f" ({list(notes).index(verdict.note) + 1})"
                shown.append(verdict.word + mark)
            lines.append(f"| {row.title} | {' | '.join(shown)} |")
        if rows is all_rows()[-1][1]:
            lines.append(f"| {IMPORT_TITLE} | {' | '.join(imports[library] for library in LIBRARIES)} |")
            lines.append(f"| version | {' | '.join(known[library] for library in LIBRARIES)} |")
        lines += [
            "",
            *(f"{number}. {', '.join(of)}: {note}." for number, (note, of) in enumerate(notes.items(), start=1)),
            "",
        ]
    return "\n".join(lines)


def _main(arguments: list[str]) -> None:
    logging.disable(logging.CRITICAL)
    warnings.simplefilter("ignore")
    import stamina.instrumentation

    stamina.instrumentation.set_on_retry_hooks([])
    cells = all_cells()
    if "--json" in arguments:
        plain = {title: {name: [one.word, one.note] for name, one in row.items()} for title, row in cells.items()}
        sys.stdout.write(json.dumps(plain))
        return
    imports = {library: f"{import_seconds(library) * 1000:.0f}" for library in LIBRARIES}
    text = render(cells, imports)
    if "--write" in arguments:
        page = PAGE.read_text()
        before, after = page.split(BEGIN)[0], page.split(END)[1]
        PAGE.write_text(f"{before}{BEGIN}\n{text}\n{END}{after}")
        return
    sys.stdout.write(text)


if __name__ == "__main__":
    _main(sys.argv[1:])
