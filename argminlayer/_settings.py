"""The fields of an experiment as command-line options: their names, types, defaults, and the reading of values."""

import dataclasses
import pathlib
import types
import typing
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from ._errors import ExperimentError, near_matches

_BOOLEANS = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
_SCALARS = {int: "int", float: "float", pathlib.Path: "path", str: "str"}


@dataclasses.dataclass(frozen=True)
class Setting:
    """One field of an experiment.

    Attributes:
        name: of the field; the option is ``--name`` with dashes for underscores.
        type: ``str``, ``int``, ``float``, ``bool``, ``Path``, a ``Literal``, a tuple of these, or a union of these and
            None. A field of any other type is set from Python only.
        default: the field's default.
        help: the field's ``metadata["help"]``.
    """

    name: str
    type: Any
    default: Any
    help: str = ""

    @property
    def option(self) -> str:
        """The option on the command line."""
        return "--" + self.name.replace("_", "-")

    @property
    def is_flag(self) -> bool:
        """Whether the option is ``--name`` or ``--no-name``, without a value."""
        return bool in _alternatives(self.type)

    @property
    def usage(self) -> str:
        """How the option is written."""
        if self.is_flag:
            return f"{self.option} / --no-{self.option[2:]}"
        return f"{self.option} {kind(self.type) or '(from Python only)'}"

    def read(self, text: str) -> Any:
        """Return the value that ``text`` stands for.

        Raises:
            ExperimentError: it does not stand for a value of this type.
        """
        expected = kind(self.type)
        if expected is None:
            raise ExperimentError(
                f"{self.option} is a {self.type}, which cannot be written on the command line; set it from Python"
            )
        try:
            return _convert(self.type, text)
        except ValueError as error:
            raise ExperimentError(f"{self.option} takes {expected}, not {text!r}") from error


def settings_of(experiment: type) -> tuple[Setting, ...]:
    """Return the settings of an experiment, a dataclass whose fields all have defaults.

    Raises:
        ExperimentError: it is not a dataclass, or a field has no default.
    """
    if not dataclasses.is_dataclass(experiment):
        raise ExperimentError(f"{experiment.__qualname__} is not a dataclass; decorate it with @dataclass(frozen=True)")
    annotations = typing.get_type_hints(experiment)
    fields = [field for field in dataclasses.fields(experiment) if field.init]
    return tuple(
        Setting(field.name, annotations[field.name], _default(experiment, field), str(field.metadata.get("help", "")))
        for field in fields
    )


def read_settings(settings: Sequence[Setting], tokens: Iterable[str], owner: str) -> dict[str, Any]:
    """Return the values given by ``--name value``, ``--name=value``, ``--flag`` and ``--no-flag``, by field name.

    Args:
        settings: what may be given.
        tokens: the words of the command line.
        owner: whose settings they are, for messages.

    Raises:
        ExperimentError: an option is unknown, given twice, lacks its value, or its value cannot be read.
    """
    options = {setting.option: setting for setting in settings}
    negations = {f"--no-{setting.option[2:]}": setting for setting in settings if setting.is_flag}
    values: dict[str, Any] = {}
    words = iter(tokens)
    for word in words:
        option, equals, text = word.partition("=")
        option = option.replace("_", "-")
        setting = options.get(option) or negations.get(option)
        if setting is None:
            raise ExperimentError(_unknown(word, [*options, *negations], owner))
        if setting.name in values:
            raise ExperimentError(f"{setting.option} of {owner} is given twice; give it once")
        if not equals and setting.is_flag:
            values[setting.name] = option in options
        elif option not in options:
            raise ExperimentError(f"{option} takes no value; write {option} alone, or {setting.option}={text}")
        else:
            values[setting.name] = setting.read(text if equals else _next(words, setting, {*options, *negations}))
    return values


def kind(annotation: Any) -> str | None:
    """Return a word for the values of a type, such as ``"int or none"``, or None if it has no form as text."""
    if annotation is types.NoneType:
        return "none"
    if annotation is bool:
        return "true|false"
    if annotation in _SCALARS:
        return _SCALARS[annotation]
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Literal:
        return "|".join(map(str, arguments))
    if origin in (typing.Union, types.UnionType):
        return _joined(map(kind, arguments), " or ")
    if origin is tuple and not any(typing.get_origin(item) is tuple for item in arguments):
        is_open = arguments[1:] == (...,)
        return _joined([kind(arguments[0]), "..."] if is_open else map(kind, arguments), ",")
    return None


def show(value: Any) -> str:
    """Return a value as it is written on the command line."""
    if value is None or isinstance(value, bool):
        return str(value).lower()
    return ",".join(map(show, value)) if isinstance(value, tuple) else str(value)


def _joined(words: Iterable[str | None], separator: str) -> str | None:
    known = list(words)
    return None if None in known else separator.join(filter(None, known))


def _alternatives(annotation: Any) -> tuple[Any, ...]:
    is_union = typing.get_origin(annotation) in (typing.Union, types.UnionType)
    return typing.get_args(annotation) if is_union else (annotation,)


def _default(experiment: type, field: "dataclasses.Field[Any]") -> Any:
    if field.default is not dataclasses.MISSING:
        return field.default
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    raise ExperimentError(f"the field {field.name!r} of {experiment.__qualname__} has no default; a setting needs one")


def _next(words: Iterator[str], setting: Setting, options: set[str]) -> str:
    text = next(words, None)
    if text is None or text in options:
        raise ExperimentError(f"{setting.option} needs a value: write {setting.usage}")
    return text


def _unknown(word: str, options: Sequence[str], owner: str) -> str:
    if not word.startswith("--"):
        return f"{word!r} is not a setting of {owner}; settings are written --name value"
    near = near_matches(word.partition("=")[0], options)
    return f"{owner} has no setting {word!r}.{near} Its settings are {', '.join(options)}."


def _convert(annotation: Any, text: str) -> Any:
    """Return ``text`` as a value of a type that :func:`kind` has a word for; ValueError when it is not one."""
    if annotation is types.NoneType:
        if text.lower() != "none":
            raise ValueError(text)
        return None
    if annotation is bool:
        if text.lower() not in _BOOLEANS:
            raise ValueError(text)
        return _BOOLEANS[text.lower()]
    if annotation in _SCALARS:
        return annotation(text)
    arguments = typing.get_args(annotation)
    if typing.get_origin(annotation) is typing.Literal:
        return _convert_choice(arguments, text)
    if typing.get_origin(annotation) is tuple:
        return _convert_tuple(arguments, text)
    return _convert_union(arguments, text)


def _convert_choice(choices: tuple[Any, ...], text: str) -> Any:
    for choice in choices:
        if str(choice) == text:
            return choice
    raise ValueError(text)


def _convert_tuple(items: tuple[Any, ...], text: str) -> tuple[Any, ...]:
    pieces = [piece.strip() for piece in text.split(",")] if text else []
    if items[1:] == (...,):
        items = (items[0],) * len(pieces)
    return tuple(_convert(item, piece) for item, piece in zip(items, pieces, strict=True))


def _convert_union(alternatives: tuple[Any, ...], text: str) -> Any:
    # Any text is a string or a path, so these are tried last.
    for annotation in sorted(alternatives, key=lambda a: (a in (str, pathlib.Path), a is not types.NoneType)):
        try:
            return _convert(annotation, text)
        except ValueError:
            continue
    raise ValueError(text)
