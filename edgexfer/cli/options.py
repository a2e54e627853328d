"""Options that verbs share, made from the recipe's sections so that both say the same thing.

A field ``batch_size`` of a section is the option ``--batch-size``; its help and its default are the
field's own. An option that is not given leaves the section's default alone.
"""

from __future__ import annotations

import dataclasses
import inspect
import re
import types
import typing
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, TypeVar

import click

F = TypeVar("F", bound=Callable[..., Any])
S = TypeVar("S")

json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")


def split_names(text: str | None) -> tuple[str, ...]:
    """Split a list of names at its commas; empty ones are left out."""
    return tuple(name.strip() for name in (text or "").split(",") if name.strip())


def split_targets(text: str) -> tuple[str, ...]:
    """Split what ``--target`` was given at its commas.

    Raises:
        UsageError: it names no profile.
    """
    names = split_names(text)
    if not names:
        raise click.UsageError("--target names no profile", click.get_current_context())
    return names


def beside(path: Path, ending: str) -> Path:
    """Return the path beside ``path`` whose name is longer by ``ending``; ``.`` has a name too."""
    named = path if path.name not in ("", "..") else path.resolve()
    return named.parent / (named.name + ending)


def section_options(cls: type, *, leave_out: tuple[str, ...] = ()) -> Callable[[F], F]:
    """Return a decorator that adds one option per field of a recipe's section."""
    texts = attribute_docs(cls)
    hints = typing.get_type_hints(cls)

    def decorate(function: F) -> F:
        for field in reversed(dataclasses.fields(cls)):
            if field.name not in leave_out:
                option = _option(field, hints[field.name], texts[field.name])
                function = option(function)
        return function

    return decorate


def make_section(cls: type[S], given: dict[str, Any], **fixed: Any) -> S:
    """Build a section from the options that were given, and check it as a recipe's would be.

    Args:
        cls: the section.
        given: all options of the verb by name; those of other sections are ignored.
        fixed: fields that are not options.

    Raises:
        RecipeError: naming each field that is wrong.
    """
    from edgexfer.recipe import check_section

    names = {f.name for f in dataclasses.fields(cls)}  # type: ignore[arg-type]
    taken = {k: v for k, v in given.items() if k in names and v is not None}
    return check_section(cls(**{**taken, **fixed}))


def key_values(given: tuple[str, ...], flag: str) -> dict[str, Any]:
    """Read ``KEY=VALUE`` options, their values as YAML.

    Raises:
        RecipeError: one is not of that form, or a key comes twice.
    """
    from edgexfer.core.errors import RecipeError
    from edgexfer.yamlio import parse_value

    found: dict[str, Any] = {}
    for text in given:
        key, equals, value = text.partition("=")
        if not equals or not key:
            raise RecipeError(f"{flag} {text}: is not key=value", f"write {flag} key=value")
        if key in found:
            raise RecipeError(f"{flag} {key}: is given twice", "give it once")
        found[key] = parse_value(value, f"{flag} {key}", RecipeError)
    return found


def _option(field: dataclasses.Field[Any], hint: Any, text: str) -> Callable[[F], F]:
    flag = "--" + field.name.replace("_", "-")
    kind = _plain(hint)
    default = field.default
    if isinstance(default, bool):
        default = flag[2:] if default else f"no-{flag[2:]}"
    shown = "" if default in (None, (), dataclasses.MISSING) else f"  [default: {default}]"
    if kind is bool:
        name = f"{flag}/--no-{flag[2:]}"
        return click.option(name, field.name, default=None, help=text + shown)
    if typing.get_origin(kind) is tuple:
        return click.option(
            flag, field.name, type=_Listed(_plain(typing.get_args(kind)[0])), help=text
        )
    if typing.get_origin(kind) is typing.Literal:
        choice = click.Choice(typing.get_args(kind))
        return click.option(flag, field.name, type=choice, help=text + shown)
    return click.option(flag, field.name, type=kind, help=text + shown)


class _Listed(click.ParamType):  # type: ignore[type-arg, unused-ignore]
    """Several values with commas between them."""

    name = "LIST"

    def __init__(self, of: type) -> None:
        """Take values of this type."""
        self._of = click.types.convert_type(of)

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[Any, ...]:
        """Split a text at its commas."""
        parts = [part.strip() for part in str(value).split(",") if part.strip()]
        return tuple(self._of.convert(part, param, ctx) for part in parts)


def _plain(hint: Any) -> Any:
    """Strip Annotated and ``| None`` from a type hint."""
    if typing.get_origin(hint) is Annotated:
        hint = typing.get_args(hint)[0]
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        hint = next(a for a in typing.get_args(hint) if a is not type(None))
    return hint


def attribute_docs(cls: type) -> dict[str, str]:
    """Read the ``Attributes:`` part of a docstring into one line for each name."""
    _, _, part = inspect.cleandoc(cls.__doc__ or "").partition("Attributes:\n")
    docs: dict[str, str] = {}
    name = ""
    for line in part.splitlines():
        match = re.match(r"    (\w+): (.*)", line)
        if match:
            name = match[1]
            docs[name] = match[2]
        elif name:
            docs[name] += " " + line.strip()
    return {k: _sentence(v) for k, v in docs.items()}


def _sentence(text: str) -> str:
    """Drop the code marks; a text that opens with a literal value or a symbol keeps its case."""
    if text.startswith("``") or not re.match("a |[a-z]{2}", text):
        return text.replace("``", "")
    text = text.replace("``", "")
    return text[:1].upper() + text[1:]


def refuse_without_data(given: Mapping[str, Any]) -> None:
    """Refuse options of a data set that is not named.

    Raises:
        UsageError: one of them was given.
    """
    for name, value in given.items():
        if value is not None:
            option = "--" + name.replace("_", "-")
            raise click.UsageError(f"{option} needs --data", click.get_current_context())
