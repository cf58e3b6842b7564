"""SEEING: a run as spans, metrics and log lines, for what a team looks at anyway.

Reads the run's events and samples, and nothing else. It can neither slow a run down nor break it: what it hears goes
into a bounded queue, and everything slow (a collector, a disk, a scraper) is on the other side of that. May enter here:
readers of events and samples. May not: anything that decides about a run.

`wanted` says what was asked for and needs nothing installed; the libraries of the extra `squall[telemetry]` are imported
by `otlp` (opentelemetry-sdk and its exporter) and `page` (prometheus-client) alone.
"""
