"""Tables of TOML and JSON as checked dataclasses: no name and no value passes unseen."""

import dataclasses
import types
import typing
from collections.abc import Mapping
from typing import Any, TypeVar, overload

T = TypeVar("T")


@overload
def from_table(start: type[T], table: Any, place: str = ..., path: str = ...) -> T: ...


@overload
def from_table(start: T, table: Any, place: str = ..., path: str = ...) -> T: ...


def from_table(start: Any, table: Any, place: str = "", path: str = "") -> Any:
    """A dataclass of the values of a table, each checked by its field's type.

    Types are those of the field and no others: ``true`` is no number and 1 no truth. A whole
    number will do for a float, and a list for a tuple. The dataclass's own checks run as always.

    Args:
        start: The class; or an object of it, whose values stay where the table has none.
        table: Names and values, nested as the dataclasses are.
        place: Name of what is read, such as a file's, for messages.
        path: Place of the table in it, such as ``"train.loss"``.

    Raises:
        ValueError: With the place, for an unknown name, a value of another type, a field that is
            missing, and whatever the dataclass itself refuses.

    >>> from mgca.config import SegmentConfig
    >>> from_table(SegmentConfig, {"window": 64, "stride": 32}).window
    64
    """
    before = f"{place}: " if place else ""
    if not isinstance(table, Mapping):
        raise ValueError(f"{before}{path or 'it'} is a table of values, not {table!r}")
    kind = start if isinstance(start, type) else type(start)
    fields = {field.name: field for field in dataclasses.fields(kind)}
    dot = f"{path}." if path else ""
    for name in table:
        if name not in fields:
            names = ", ".join(sorted(fields))
            raise ValueError(f"{before}no value {dot}{name}: known are {names}")
    values = {}
    for name, value in table.items():
        # Of a class, its field's default.
        present = getattr(start, name, dataclasses.MISSING)
        if dataclasses.is_dataclass(present):
            values[name] = from_table(present, value, place, dot + name)
            continue
        value = _checked(value, fields[name].type, place, dot + name)
        # 15 epochs are 15.0 epochs, and the same run.
        values[name] = present if value == present else value
    if kind is start:
        for name, field in fields.items():
            needed = field.default is field.default_factory is dataclasses.MISSING
            if needed and name not in table:
                raise ValueError(f"{before}{dot}{name} is missing")
    try:
        return kind(**values) if kind is start else dataclasses.replace(start, **values)
    except ValueError as error:
        raise ValueError(f"{before}{error}") from None


def _checked(value: Any, kind: Any, place: str, path: str) -> Any:
    """The value, if it is of the type; tables and lists are checked within."""
    kinds = typing.get_args(kind) if isinstance(kind, types.UnionType) else (kind,)
    origin = typing.get_origin(kind)
    if len(kinds) == 1 and dataclasses.is_dataclass(kind):
        return from_table(kind, value, place, path)
    if origin is tuple and isinstance(value, list):
        entry = typing.get_args(kind)[0]
        return tuple(_checked(v, entry, place, f"{path}[{i}]") for i, v in enumerate(value))
    if origin is dict and isinstance(value, dict):
        entry = typing.get_args(kind)[1]
        return {key: _checked(v, entry, place, f"{path}.{key}") for key, v in value.items()}
    if type(value) in kinds:
        return value
    before = f"{place}: " if place else ""
    if float in kinds and type(value) is int:
        try:
            return float(value)
        except OverflowError:
            raise ValueError(f"{before}{path} is too large a number") from None
    raise ValueError(f"{before}{path} must be {' or '.join(map(_name, kinds))}, not {value!r}")


def _name(kind: Any) -> str:
    """A type as people write it."""
    origin = typing.get_origin(kind)
    words = {types.NoneType: "none", tuple: "a list", dict: "a table"}
    return words.get(origin or kind) or kind.__name__
