"""Typed parameters of strategies and workloads, from TOML or from a command line."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from kmbench.errors import UsageProblem, unknown


@dataclass(frozen=True)
class Parameter:
    """A typed parameter: its type is the default's (int, float, bool, str, a list of str
    or a table)."""

    name: str
    default: Any
    description: str
    unit: str = ""
    minimum: float | None = None
    choices: tuple = ()
    maximum: float | None = None

    def parse(self, value: Any, where: str) -> Any:
        """`value`, from TOML or a command line, as this parameter's type; else UsageProblem."""
        wanted = type(self.default)
        problem = f"{where}: {self.name} = {value!r}: expected "
        if isinstance(value, str) and wanted is not str:
            value = _from_text(value, wanted)
        if wanted is float and isinstance(value, int) and not isinstance(value, bool):
            value = float(value)
        if not isinstance(value, wanted) or (wanted is int and isinstance(value, bool)):
            names = {int: "a whole number", float: "a number", bool: "true or false",
                     str: "a string", list: "a list of strings", dict: "a table"}  # fmt: skip
            raise UsageProblem(problem + names[wanted])
        if wanted is list and not all(isinstance(item, str) for item in value):
            raise UsageProblem(problem + "a list of strings")
        if self.minimum is not None and value < self.minimum:
            raise UsageProblem(problem + f"at least {self.minimum}{self.unit and ' ' + self.unit}")
        if self.maximum is not None and value > self.maximum:
            raise UsageProblem(problem + f"at most {self.maximum}{self.unit and ' ' + self.unit}")
        if self.choices and value not in self.choices:
            raise UsageProblem(problem + "one of " + ", ".join(map(str, self.choices)))
        return value


def _from_text(text: str, wanted: type) -> Any:
    if wanted is bool:
        return {"true": True, "yes": True, "false": False, "no": False}.get(text.lower(), text)
    if wanted is list:
        return [item for item in (part.strip() for part in text.split(",")) if item]
    try:
        return wanted(text)
    except ValueError:
        return text


def parse_parameters(
    declared: Iterable[Parameter], given: Mapping[str, Any], where: str
) -> dict[str, Any]:
    """All parameters with defaults filled in; a name that is not declared is a UsageProblem."""
    known = {parameter.name: parameter for parameter in declared}
    for name in given:
        if name not in known:
            raise unknown("parameter", name, known).within(where)
    return {
        name: parameter.parse(given[name], where) if name in given else parameter.default
        for name, parameter in known.items()
    }
