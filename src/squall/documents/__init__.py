"""YAML and JSON files as plain values that know their places, and all of their errors at once.

Every reader of a document (experiments, stand-ins, a configuration) builds on this; nothing here knows what a document
is for.
"""

from squall.documents.places import DocumentError, Path, Place, Problem, dotted
from squall.documents.reading import Document, load, load_all, read, read_all
from squall.documents.schema import nearest, problem_from_details, problems_from_pydantic

__all__ = [
    "Document",
    "DocumentError",
    "Path",
    "Place",
    "Problem",
    "dotted",
    "load",
    "load_all",
    "nearest",
    "problem_from_details",
    "problems_from_pydantic",
    "read",
    "read_all",
]
