"""One page a fault, and the table of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from reference_pages.schema import prose, table
from squall.faults import FAULTS

if TYPE_CHECKING:
    from squall.faults import Fault

__all__ = ["pages"]

FAMILIES = {
    "process": "Processes: killed, crashed, paused.",
    "stress": "What a service needs, used up: CPU, memory, file descriptors, disk.",
    "tcp": "TCP connections that pass a proxied route, whatever they carry.",
    "http": "HTTP requests and responses that pass a proxied route.",
}
"""What the families are about; one without a line here is listed by its name alone."""


def pages() -> dict[str, str]:
    """`faults.md`, and `faults/TYPE.md` for each fault."""
    return {"faults.md": _overview(), **{f"faults/{tag}.md": _page(fault) for tag, fault in FAULTS.items()}}


def _first_sentence(fault: type[Fault]) -> str:
    return prose((fault.__doc__ or "").split("\n\n")[0])


def _overview() -> str:
    parts = [
        "# Faults\n",
        (
            "Each fault is one model in `src/squall/faults`, and this page is made from those models. "
            "`squall faults` lists the same on the command line, `squall faults TYPE` describes one.\n"
        ),
    ]
    for family in dict.fromkeys(tag.partition(".")[0] for tag in FAULTS):
        members = {tag: fault for tag, fault in FAULTS.items() if tag.startswith(f"{family}.")}
        parts += [f"## {family}\n", FAMILIES.get(family, "") + "\n", "| Fault | What happens | On |", "|---|---|---|"]
        parts += [
            f"| [`{tag}`](faults/{tag}.md) | {_first_sentence(fault)} | {', '.join(fault.targets)} |"
            for tag, fault in members.items()
        ]
        parts += ["", "```{toctree}", ":hidden:", *(f"faults/{tag}" for tag in members), "```", ""]
    return "\n".join(parts)


def _page(fault: type[Fault]) -> str:
    schema = fault.model_json_schema(by_alias=True)
    kinds = " or ".join(f"`{kind}`" for kind in fault.targets)
    undo = (
        "It ends when the run does, whatever dies meanwhile."
        if fault.reversible
        else "It cannot be taken back: the plan says so before anything is touched, and what is watched is the system's own recovery."
    )
    return (
        "\n\n".join(
            [
                f"# {fault.type}",
                prose(fault.__doc__ or ""),
                f"It happens to a target of kind {kinds}. {undo}",
                "## Keys",
                table(schema, {}),
                (
                    "Beside these stand the keys that every fault of an experiment has: `targets`, `after`, `duration`, `pulse` "
                    "(see [FaultStep](../document.md#faultstep))."
                ),
            ]
        )
        + "\n"
    )
