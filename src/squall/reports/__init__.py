"""What people and build servers read of a run: HTML, Markdown, JUnit XML, JSON and the terminal's summary.

`load_run` reads a run's folder alone into a `RunRecord`; each format is one pure function of that record, in a file of
its own. Works for every run: aborted, interrupted, or cut off in mid-line. Nothing in here judges or measures.
"""
