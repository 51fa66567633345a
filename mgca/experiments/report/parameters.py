"""What the parameters of a notebook mean: one reading of them, however they were passed.

papermill passes a number as a number and all else as text, ``-p seeds 0,1``, ``-p patch "(7, 7)"``,
``-p steps None``; Python passes lists. The default of a parameter says what it is.
"""

import ast
import sys
from collections.abc import Callable, Iterable
from typing import Any

_INJECTED = "# Parameters"  # what papermill writes above the values that were passed


def one(value: Any) -> Any:
    """A parameter of one value; ``None`` also as text."""
    return None if value in ("None", "none", "null") else value


def listed(value: Any, kind: Callable[[Any], Any] = str) -> tuple[Any, ...]:
    """A parameter of several values.

    Args:
        value: Values, one value, or the text of either: as Python or JSON write it, or with
            commas between.
        kind: The type of each value.

    Raises:
        ValueError: If a value is not of that type.
    """
    if isinstance(value, str):
        text = value.strip()
        try:
            value = ast.literal_eval(text if text[:1] in ("[", "(") else f"[{text}]")
        except (SyntaxError, ValueError):  # names without quotation marks
            inside = text[1:-1] if text[:1] + text[-1:] == "[]" else text
            value = [part.strip() for part in inside.split(",") if part.strip()]
    elif not isinstance(value, Iterable):
        value = [value]
    return tuple(kind(each) for each in value)


def whole_numbers(value: Any, name: str = "seeds") -> tuple[int, ...]:
    """A parameter of different whole numbers from 0, such as seeds, as :func:`listed` reads it.

    Args:
        value: The parameter.
        name: Name of the parameter, for the error.

    Raises:
        ValueError: If it is anything else.
    """
    try:
        numbers = listed(value, _whole)
    except ValueError:
        numbers = ()
    if not numbers or min(numbers) < 0 or len(set(numbers)) < len(numbers):
        raise ValueError(f"{name} are different whole numbers such as 0,1,2, not {value!r}")
    return numbers


def _whole(value: Any) -> int:
    return int(str(value))  # neither 1.5 nor True is one


def like(default: Any, value: Any, name: str) -> Any:
    """A value that was passed, of the type that the parameter's default has.

    Args:
        default: The default; None takes any value.
        value: What was passed. None is passed on, but for text, where it is "".
        name: Name of the parameter, for the error.

    Raises:
        ValueError: If the value cannot be of that type.
    """
    value = one(value)
    kinds: dict[type, Callable[[Any], Any]] = {int: _whole, float: float, str: str}
    try:
        if isinstance(default, str):
            return "" if value is None else str(value)
        if value is None or default is None:
            return value
        if isinstance(default, list | tuple):
            return type(default)(listed(value, kinds[type(default[0])]))
        return kinds[type(default)](value)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name} is such as {default!r}, not {value!r}") from error


def settle() -> None:
    """Give the parameters that papermill passed to this notebook the types of their defaults.

    Outside of a notebook, and in one that papermill does not execute, nothing happens.

    Raises:
        ValueError: If the notebook has no parameter of a name that was passed, or a value cannot
            be of the type of its default.
    """
    shell = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
    cells = shell.user_ns.get("In", ()) if shell is not None else ()
    passed = [place for place, cell in enumerate(cells) if cell.startswith(_INJECTED)]
    if not passed:
        return
    # papermill puts them behind the cell of the defaults, or first where there is none.
    defaults = _assigned(cells[passed[-1] - 1])
    for name, value in _assigned(cells[passed[-1]]).items():
        if name not in defaults:
            known = f"only {', '.join(defaults)}" if defaults else "and no other one"
            raise ValueError(f"this notebook has no parameter {name!r}, {known}")
        shell.user_ns[name] = like(defaults[name], value, name)


def _assigned(cell: str) -> dict[str, Any]:
    """The constants that a cell assigns, by name; none of one that does anything else."""
    try:
        body = ast.parse(cell).body
        return {
            line.targets[0].id: ast.literal_eval(line.value)
            for line in body
            if isinstance(line, ast.Assign)
        }
    except (AttributeError, SyntaxError, ValueError):
        return {}
