"""Patterns that let a service ride faults out, and chaos inside it; see the README of squall-resilience."""

__version__ = "0.1.0"
