"""Reads the sections of a YAML file, value by value, and tells every problem with its line."""

from difflib import get_close_matches
from functools import cache
from types import NoneType, UnionType
from typing import Annotated, Any, TypeVar, Union, get_args, get_origin

import msgspec
from msgspec import Meta, Struct, UnsetType, structs

from broker.supervisor.document import BadDocument, Document, Place
from broker.supervisor.values import Before


class Section(Struct, frozen=True):
    """A mapping with known names."""

    @classmethod
    def completed(cls, data: dict[str, Any]) -> dict[str, Any]:
        """What a file says, with what goes without saying."""
        return data


_Model = TypeVar("_Model", bound=Section)
_Shape = TypeVar("_Shape", list[Any], dict[str, Any])


def read_as(model: type[_Model], document: Document) -> _Model:
    """Checks a document against a model.

    Raises:
        BadDocument: with every problem on a line of its own: file, line, field, value and what is expected.
    """
    reader = _Reader(document)
    found = reader.section(model, model.completed(document.data), ())
    if found is None:
        raise BadDocument("\n".join(f"{where}: {what}" for where, what in reader.problems.items()))
    return found


class _Reader:
    """Reads value by value, because msgspec stops at the first that does not fit."""

    def __init__(self, document: Document) -> None:
        self.problems: dict[str, str] = {}
        self._document = document

    def section(self, model: type[_Model], data: dict[str, Any], place: Place) -> _Model | None:
        """Reads a model; None when there are problems, there or before."""
        fields = _fields(model)
        values = {}
        for name, field in fields.items():
            if name in data:
                values[field.name] = self._value(field.type, data[name], (*place, name))
            elif field.required:
                self._add((*place, name), f"is missing; expects {_expected(field.type)}")
        for name in map(str, data):
            if name not in fields:
                near = get_close_matches(name, fields, n=1)
                hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(fields)}"
                self._add((*place, name), f"is not a field; {hint}")
        return None if self.problems else model(**values)

    def _value(self, kind: Any, value: Any, place: Place, around: str = "") -> object:
        expected = _expected(kind) or around
        try:
            return self._through_steps(kind, value, place, expected)
        except msgspec.ValidationError:
            self._add(place, f"is {_short(value)}; expects {expected}")
        except ValueError as error:
            self._add(place, f"is {_short(value)}: {error}")
        return None

    def _through_steps(self, kind: Any, value: Any, place: Place, expected: str) -> object:
        for note in _notes(kind):
            if isinstance(note, Before):
                value = note.step(value)
        known = len(self.problems)
        value = self._content(kind, value, place, expected)
        for step in filter(callable, _notes(kind)):
            if len(self.problems) == known:
                value = step(value)
        return value

    def _content(self, kind: Any, value: Any, place: Place, expected: str) -> object:
        bare = _bare(kind)
        if get_origin(bare) is tuple:
            item, items = get_args(bare)[0], _shaped(list, value)
            return tuple(self._value(item, each, (*place, index), expected) for index, each in enumerate(items))
        if get_origin(bare) is dict:
            item, table = get_args(bare)[1], _shaped(dict, value)
            return {name: self._value(item, each, (*place, str(name)), expected) for name, each in table.items()}
        if isinstance(bare, type) and issubclass(bare, Section):
            return self.section(bare, _shaped(dict, value), place)
        return msgspec.convert(value, kind, dec_hook=lambda _, made: made)

    def _add(self, place: Place, text: str) -> None:
        # One name stands for two fields, so one mistake in it is found twice.
        if place == ("id",) and "id" not in self._document.data:
            place = ("name",)
        name = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in place).removeprefix(".")
        self.problems.setdefault(f"{self._document.at(place)}: {name}", text)


@cache
def _fields(model: type[Section]) -> dict[str, structs.FieldInfo]:
    # msgspec evaluates the annotations anew each time, a fifth of what it takes to read a plugin.yaml.
    return {field.encode_name: field for field in structs.fields(model)}


def _bare(kind: Any) -> Any:
    """A kind without its notes, and without what stands for its absence."""
    if get_origin(kind) is Annotated:
        return _bare(get_args(kind)[0])
    if get_origin(kind) is UnionType or get_origin(kind) is Union:
        present = [each for each in get_args(kind) if each not in (NoneType, UnsetType)]
        if len(present) == 1 and _is_nested(_bare(present[0])):
            return _bare(present[0])
    return kind


def _is_nested(kind: Any) -> bool:
    return get_origin(kind) in (tuple, dict) or (isinstance(kind, type) and issubclass(kind, Section))


def _notes(kind: Any) -> tuple[Any, ...]:
    return get_args(kind)[1:] if get_origin(kind) is Annotated else ()


def _expected(kind: Any) -> str:
    return next((note.description for note in _notes(kind) if isinstance(note, Meta) and note.description), "")


def _shaped(shape: type[_Shape], value: object) -> _Shape:
    if not isinstance(value, shape):
        raise msgspec.ValidationError
    return value


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}…"
