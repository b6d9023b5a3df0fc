"""What a contract says of each field, read off its pydantic model: the one source of Arrow types and of vectorized checks.

Whatever a model asks of a field that is not understood here is an error, so that no check can be forgotten in silence.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal, NamedTuple

import pyarrow as pa
from pydantic import BaseModel

from guidelens.schemas.base import refuse_number, whole_number_as_text

ValueKind = Literal["text", "integer", "number", "flag", "moment"]
TIMESTAMP = pa.timestamp("us", tz="UTC")
_KINDS: dict[str, ValueKind] = {"str": "text", "int": "integer", "float": "number", "bool": "flag", "datetime": "moment"}
_LIMITS = frozenset({"ge", "gt", "le", "lt", "min_length", "max_length", "pattern"})
_SAYS_NOTHING = frozenset({"type", "metadata", "ref", "serialization", "allow_inf_nan", "microseconds_precision", "tz_constraint"})
"""Keys that every check here covers: numbers are finite, times have a zone and are cut to microseconds."""
_UNDERSTOOD: frozenset[Callable[..., Any]] = frozenset({refuse_number, whole_number_as_text})
"""Field validators whose rule the kind's check holds too."""
_INT32_MAX = 2**31 - 1


class FieldRule(NamedTuple):
    """One field. choices: the only texts it takes, where it is an enum. limits: ge, gt, le, lt, min_length, max_length, pattern.
    takes_whole_numbers: a text that may be given as one."""

    name: str
    kind: ValueKind
    required: bool
    choices: tuple[str, ...] = ()
    limits: Mapping[str, Any] = {}
    takes_whole_numbers: bool = False

    @property
    def arrow_type(self) -> pa.DataType:
        if self.kind == "integer":
            return pa.int32() if self.limits.get("le", self.limits.get("lt", _INT32_MAX + 1)) <= _INT32_MAX else pa.int64()
        return {"text": pa.string(), "number": pa.float64(), "flag": pa.bool_(), "moment": TIMESTAMP}[self.kind]


class Contract(NamedTuple):
    """A record's fields in order, and the names of the rules over several fields (the model's validators)."""

    fields: tuple[FieldRule, ...]
    record_rules: tuple[str, ...]


def contract_of(model: type[BaseModel], leave_out: Iterable[str] = ()) -> Contract:
    """The contract that a pydantic model of plain values states.

    Raises:
        TypeError: the model asks something that is not understood here; teach it, and the checks made of it, or leave the field out.
    """
    node: Any = model.__pydantic_core_schema__
    record_rules = []
    while node["type"] == "function-after":
        record_rules.append(node["function"]["function"].__name__)
        node = node["schema"]
    if node["type"] != "model" or node["schema"]["type"] != "model-fields":
        raise TypeError(f"{model.__name__} must be a plain model, got {node['type']}")
    fields = node["schema"]["fields"]
    return Contract(
        tuple(_field(f"{model.__name__}.{name}", fields[name]["schema"]) for name in model.model_fields if name not in leave_out), tuple(record_rules)
    )


def _field(name: str, node: Any) -> FieldRule:
    required, before = True, set()
    while node["type"] in {"default", "nullable", "function-before"}:
        if node["type"] == "function-before" and node["function"]["function"] not in _UNDERSTOOD:
            raise TypeError(f"{name} has a validator that no check is made of: {node['function']['function'].__qualname__}")
        before |= {node["function"]["function"]} if node["type"] == "function-before" else set()
        required = required and node["type"] == "function-before"
        node = node["schema"]
    plain = name.partition(".")[2]
    if node["type"] == "enum" and node.get("sub_type") == "str":
        return FieldRule(plain, "text", required, tuple(str(member.value) for member in node["members"]))
    if node["type"] == "literal" and all(isinstance(value, str) for value in node["expected"]):
        return FieldRule(plain, "text", required, tuple(node["expected"]))
    unknown = set(node) - _LIMITS - _SAYS_NOTHING
    if node["type"] not in _KINDS or unknown:
        raise TypeError(f"{name} asks what no check is made of: {node['type']} with {sorted(unknown)}")
    limits = {key: node[key] for key in node if key in _LIMITS}
    return FieldRule(plain, _KINDS[node["type"]], required, limits=limits, takes_whole_numbers=whole_number_as_text in before)


def arrow_fields(model: type[BaseModel], in_place_of: Mapping[str, list[tuple[str, pa.DataType]]]) -> list[tuple[str, pa.DataType]]:
    """The columns that hold a model's fields, in order, with others in place of some."""
    rules = {rule.name: rule for rule in contract_of(model, leave_out=in_place_of).fields}
    return [column for name in model.model_fields for column in in_place_of.get(name) or ([(name, rules[name].arrow_type)] if name in rules else [])]
