"""Squall: chaos engineering for microservices, from define to recover.

The folders are the verbs: `experiment` defines, `injectors` inject, `probes` monitor, `analysis` analyses,
`recovery` recovers; `engine` runs the five in that order. ARCHITECTURE.md has the map.
"""

__version__ = "0.1.0"
