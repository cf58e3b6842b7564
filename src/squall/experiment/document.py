"""An experiment's document: read whole or refused with all of its problems, and written back.

General layout: `read_experiment`, `dump_experiment`; `_envelope` (apiVersion, kind, metadata), `_spec` (what pydantic
finds), `_salvaged` (what fits together among the parts that are right, so that one mistake does not hide another).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import BaseModel, ValidationError

from squall.documents import DocumentError, Problem, load, nearest, problem_from_details, read
from squall.experiment.checks import Parts, problems_of
from squall.experiment.model import (
    API_VERSION,
    STEP_KEYS,
    Abort,
    Expectation,
    Experiment,
    FaultStep,
    Targets,
    Tolerate,
    completed,
)
from squall.faults import FAULTS, Fault, fault_types
from squall.probes.spec import Load
from squall.units import Duration

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

    from squall.documents import Document

__all__ = ["KIND", "dump_experiment", "experiment_document", "experiment_of_run", "read_experiment"]

KIND = "Experiment"

Model = TypeVar("Model", bound=BaseModel)

_LATER_KINDS = {
    "Schedule": "give its experiment as a document of its own and start `squall run` from cron or a systemd timer",
    "Simulation": "",
    "FaultPolicy": "",
}

_ENVELOPE = ("apiVersion", "kind", "metadata", "spec")


def read_experiment(document: Path | str, source: str = "document") -> Experiment:
    """The experiment that a file (a Path) or a text (a str, called `source` in errors) holds, with every default filled in.

    Raises DocumentError, an InputError, with every problem at once: file, line, column, path, what is wrong, what is
    allowed and the nearest right spelling.
    """
    found = read(document) if isinstance(document, Path) else load(document, source)
    problems, name = _envelope(found)
    spec = found.value.get("spec") if isinstance(found.value, dict) else None
    if not isinstance(spec, dict):
        raise DocumentError(problems)
    if "name" in spec:
        problems.append(found.problem(("spec", "name"), "is not known here: a name stands in `metadata`", key=True))
    values = {**{key: value for key, value in spec.items() if key != "name"}, "name": name}
    try:
        experiment = Experiment.model_validate(values, by_alias=True, by_name=False, context={"document": True})
    except ValidationError as error:
        raise DocumentError(_without_repeats(problems + _spec(error, found) + _salvaged(found))) from None
    if problems:
        raise DocumentError(problems)
    return experiment


def experiment_of_run(document: dict[str, Any]) -> Experiment:
    """The experiment of a run that was, from the document in its events; InputError where this Squall cannot read it.

    What must fit together is not asked again: it was before the run, and the probes that the engine derives from the
    targets need not fit what a person would have to write (an ad-hoc fault may have no baseline, for one).
    """
    found = load(json.dumps(document), "the run's document")
    problems, name = _envelope(found)
    if problems or not isinstance(found.value.get("spec"), dict):
        raise DocumentError(problems)
    try:
        return Experiment.model_validate({**found.value["spec"], "name": name}, by_name=False, context=_RAN)
    except ValidationError as error:
        raise DocumentError(_spec(error, found)) from None


_RAN = {"document": True, "ran": True}


def experiment_document(experiment: Experiment) -> dict[str, Any]:
    """The document of an experiment as JSON values, defaults said; `read_experiment` of it gives the same experiment."""
    spec = experiment.model_dump(mode="json")
    name = spec.pop("name")
    return {"apiVersion": API_VERSION, "kind": KIND, "metadata": {"name": name}, "spec": spec}


def dump_experiment(experiment: Experiment) -> str:
    """The document of an experiment as YAML."""
    from io import StringIO

    from ruamel.yaml import YAML

    yaml = YAML(typ="safe", pure=True)
    yaml.default_flow_style = False
    yaml.sort_base_mapping_type_on_output = False  # type: ignore[assignment]  # documented as a flag, typed as None
    yaml.allow_unicode = True
    yaml.width = 120
    yaml.representer.add_representer(str, _text)
    out = StringIO()
    yaml.dump(experiment_document(experiment), out)
    return out.getvalue()


_OTHER_LINE_ENDS = frozenset("\x85\u2028\u2029\ufeff")
"""YAML folds these where they stand bare; in double quotes they are escaped."""


def _text(representer: Any, text: str) -> Any:
    style = '"' if _OTHER_LINE_ENDS & set(text) else None
    return representer.represent_scalar("tag:yaml.org,2002:str", text, style=style)


def _envelope(document: Document) -> tuple[list[Problem], str]:
    """What is wrong around the spec, and the name (a stand-in where it is wrong); raises where the rest would mean nothing."""
    value = document.value
    if not isinstance(value, dict):
        raise DocumentError([document.problem((), f"is not a mapping: a document has {', '.join(_ENVELOPE)}")])
    if foreign := _foreign(document):
        raise DocumentError(foreign)
    problems = [
        document.problem(
            (key,), "is not known here", allowed=", ".join(_ENVELOPE), nearest=nearest(key, _ENVELOPE), key=True
        )
        for key in value
        if key not in _ENVELOPE
    ]
    if "spec" not in value:
        problems.append(document.problem(("spec",), "is missing: it says what the experiment does"))
    elif not isinstance(value["spec"], dict):
        problems.append(document.problem(("spec",), "must be a mapping: it says what the experiment does"))
    metadata = value.get("metadata")
    if not isinstance(metadata, dict) or "name" not in metadata:
        what = "is missing" if metadata is None or isinstance(metadata, dict) else "must be a mapping"
        path = ("metadata", "name") if isinstance(metadata, dict) else ("metadata",)
        return [*problems, document.problem(path, f"{what}: write `metadata: {{name: what-it-tries}}`")], "nameless"
    problems += [
        document.problem(
            ("metadata", key), "is not known here", allowed="name", nearest=nearest(key, ["name"]), key=True
        )
        for key in metadata
        if key != "name"
    ]
    return problems, metadata["name"]


def _foreign(document: Document) -> list[Problem]:
    """Why this is no experiment of this version at all."""
    problems = [
        document.problem((key,), f"is missing: write `{key}: {right}`")
        for key, right in (("apiVersion", API_VERSION), ("kind", KIND))
        if key not in document.value
    ]
    if problems:
        return problems
    version, kind = document.value["apiVersion"], document.value["kind"]
    if version != API_VERSION:
        ours = isinstance(version, str) and version.startswith("squall.dev/")
        why = "is of another Squall: this one reads" if ours else "is not Squall's: this version reads"
        shown = version if isinstance(version, str) else "that"
        close = nearest(version, [API_VERSION]) if isinstance(version, str) and not ours else ""
        return [document.problem(("apiVersion",), f"{shown[:60]} {why} {API_VERSION}", nearest=close)]
    if kind in _LATER_KINDS if isinstance(kind, str) else False:
        instead = _LATER_KINDS[kind]
        what = f"{kind} is not in this version of Squall yet" + (f": {instead}" if instead else "")
        return [document.problem(("kind",), what, allowed=KIND)]
    if kind != KIND:
        close = nearest(kind, [KIND]) if isinstance(kind, str) else ""
        shown = repr(kind)[:60] if isinstance(kind, str) else "that"
        return [document.problem(("kind",), f"there is no kind {shown}", allowed=KIND, nearest=close)]
    return []


def _spec(error: ValidationError, document: Document) -> list[Problem]:
    details = error.errors(include_url=False)
    return [_placed(each, document) for each in details if each["type"] != "default_factory_not_called"]


def _placed(details: ErrorDetails, document: Document) -> Problem:
    """One error of the experiment's model where a person would mend it."""
    location = details["loc"]
    if location[:1] == ("name",):
        return problem_from_details(details, document, None, ("metadata",))
    if location[:1] == ("faults",) and location[2:3] == ("fault",):
        at = ("spec", *location[:2])
        step = document.value["spec"]["faults"][location[1]]
        model = FAULTS.get(step.get("type")) if isinstance(step.get("type"), str) else Fault
        below = {**details, "loc": location[3:]}
        problem = problem_from_details(below, document, model, at, also=("type", *STEP_KEYS))  # type: ignore[arg-type]
    else:
        problem = problem_from_details(details, document, Experiment, ("spec",))
    if details["type"] == "extra_forbidden":
        return _unknown(problem)
    return _missing(problem) if details["type"] == "missing" else problem


def _unknown(problem: Problem) -> Problem:
    """An unknown key, where there is more to say about it."""
    if problem.path[:-1] == ("spec",):
        allowed = ", ".join(key for key in problem.allowed.split(", ") if key != "name")
        return Problem(problem.place, problem.path, problem.what, allowed, problem.nearest)
    return problem


def _missing(problem: Problem) -> Problem:
    """What is missing, where there is more to say about it."""
    if problem.path[-1] == "targets":
        what = "is missing: give `spec.targets`, or the fault its own; with no selector nothing is selected"
        return Problem(problem.place, problem.path, what)
    if problem.path[-1] == "type":
        return Problem(problem.place, problem.path, "is missing: it says what goes wrong", ", ".join(fault_types()))
    return problem


def _salvaged(document: Document) -> list[Problem]:
    """What does not fit together among the parts that are right in themselves."""
    spec: dict[str, Any] = document.value["spec"]
    duration, baseline = _duration(spec.get("duration")), _duration(spec.get("baseline", "10s"))
    fields: dict[str, Any] = {"targets": _valid(Targets, spec["targets"])} if "targets" in spec else {"targets": None}
    if fields["targets"] is None and "targets" in spec:
        del fields["targets"]
    if duration is not None:
        fields["duration"] = duration
    steps = {
        number: step
        for number, row in enumerate(_rows(spec.get("faults")))
        if (step := _valid(FaultStep, completed(row, fields) if isinstance(row, dict) else row))
        and (step.targets is fields.get("targets") or "targets" in row)
    }
    expectations = {
        number: expectation
        for number, row in enumerate(_rows(spec.get("steadyState")))
        if (expectation := _valid(Expectation, row))
    }
    parts = Parts(
        duration=duration,
        baseline=baseline,
        steps=steps,
        expectations=expectations,
        load=_valid(Load, spec.get("load")),
        tolerate=_valid(Tolerate, spec.get("tolerate", {})),
        abort=_valid(Abort, spec.get("abort", {})),
    )
    return [document.problem(("spec", *loc), what) for loc, what in problems_of(parts)]


def _valid(model: type[Model], value: object) -> Model | None:
    try:
        return model.model_validate(value, by_alias=True, by_name=False, context={"document": True})
    except ValidationError:
        return None


def _duration(value: object) -> Duration | None:
    try:
        return Duration.parse(value) if isinstance(value, str) else None
    except ValueError:
        return None


def _rows(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


def _without_repeats(problems: list[Problem]) -> list[Problem]:
    return list({(problem.path, problem.what): problem for problem in problems}.values())
