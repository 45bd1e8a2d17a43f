# SPDX-License-Identifier: Apache-2.0
"""YAML text to plain data that remembers where each value stands. The only importer of yaml.

What is written is what is read: of YAML's implicit types only null, ``true``/``false`` and plain
decimal numbers are taken. Everything else is text (``010`` is no octal number, ``1:30`` no
sexagesimal one, ``on`` no truth value, ``2024-01-01`` no date), and keys are always text.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

import yaml

from zoned.policy.problem import Place, Problem, field_name, shown

if TYPE_CHECKING:
    from collections.abc import Mapping

    from zoned.policy.files import Source
    from zoned.policy.problem import Path

Plain = None | bool | int | str | list["Plain"] | dict[str, "Plain"]

_DEEPEST = 32
_MOST_VALUES = 50_000
_STANDARD = "tag:yaml.org,2002:"
_KINDS: dict[type[yaml.Node], frozenset[str]] = {
    yaml.ScalarNode: frozenset(
        {"null", "bool", "int", "float", "str", "timestamp", "value", "merge"}
    ),
    yaml.SequenceNode: frozenset({"seq"}),
    yaml.MappingNode: frozenset({"map"}),
}
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]{0,17})")
_SURROGATE = re.compile("[\ud800-\udfff]")

_EXPLANATIONS = (
    ("'\\t'", "", "indent with spaces, not tabs"),
    ("mapping values are not allowed", "", "quote a value that holds ': ', check the indentation"),
    ("expected <block end>", "", "check the indentation"),
    ("could not find expected ':'", "", "write KEY: VALUE"),
    ("cannot start any token", "", "quote the value"),
    ("expected ' '", "a tag ends unexpectedly", "quote a value that begins with !"),
    ("but got '<stream end>'", "the text ends inside brackets", "close them"),
    ("node content, but found '<stream end>'", "the text ends inside brackets", "close them"),
    ("unexpected end of stream", "the text ends inside quotes", "close them"),
    ("second occurrence", "an anchor of this name is there already", "give it another name"),
    ("but found another document", "a second document begins here", "one file, one document"),
)
"""part of yaml's message, what to say instead ("" keeps it), hint; the first that fits"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """One file as plain data."""

    name: str
    data: Plain
    places: Mapping[Path, Place]

    def place(self, path: Path) -> Place:
        """Return where `path` stands, or else the nearest thing around it that is there."""
        while path and path not in self.places:
            path = path[:-1]
        return self.places.get(path, Place(1, 1))


def parse(source: Source, problems: list[Problem]) -> Document | None:
    """Return the file as plain data; None where it is not YAML at all.

    Every mistake is added to `problems`: of syntax the first one only, as YAML stops there.
    """
    reader = _Reader(source.name, problems)
    try:
        node = yaml.compose(source.text, Loader=_Loader)
        data = None if node is None else reader.value(node, ())
    except yaml.MarkedYAMLError as error:
        problems.append(_syntax_problem(source.name, error))
    except yaml.reader.ReaderError as error:
        problems.append(_letter_problem(source, error.position))
    except (ValueError, OverflowError):
        # yaml passes on what int() and chr() think of absurd version numbers and \U escapes.
        problem = Problem(
            file=source.name, place=Place(1, 1), field="document", message="is no valid YAML"
        )
        problems.append(problem)
    else:
        return Document(name=source.name, data=data, places=reader.places)
    return None


class _Loader(yaml.SafeLoader):
    """A composer that gives up early, instead of at the recursion limit."""

    depth = 0
    count = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        self.depth += 1
        self.count += 1
        mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]
        if self.depth > _DEEPEST:
            raise yaml.composer.ComposerError(problem="is nested too deeply", problem_mark=mark)
        if self.count > _MOST_VALUES:
            raise yaml.composer.ComposerError(problem="holds too many values", problem_mark=mark)
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node


class _Reader:
    """Turns nodes into plain data. Aliases are expanded, within the same bound on values."""

    def __init__(self, name: str, problems: list[Problem]) -> None:
        self.name = name
        self.places: dict[Path, Place] = {}
        self._problems = problems
        self._count = 0
        self._open: set[int] = set()

    def value(self, node: yaml.Node, path: Path) -> Plain:
        """Return the node's data, noting where everything below `path` stands."""
        self._count += 1
        if self._count > _MOST_VALUES:
            raise _mistake("aliases expand to too many values", node)
        if id(node) in self._open:
            raise _mistake("an alias stands inside what it refers to", node)
        if len(self._open) >= _DEEPEST:
            raise _mistake("aliases nest too deeply", node)
        self.places.setdefault(path, _place(node))
        self._check_tag(node, path)
        if isinstance(node, yaml.ScalarNode):
            return _scalar(node)
        self._open.add(id(node))
        is_list = isinstance(node, yaml.SequenceNode)
        data = self._list(node, path) if is_list else self._mapping(node, path)
        self._open.remove(id(node))
        return data

    def _list(self, node: yaml.Node, path: Path) -> list[Plain]:
        return [self.value(item, (*path, index)) for index, item in enumerate(node.value)]

    def _mapping(self, node: yaml.Node, path: Path) -> dict[str, Plain]:
        data: dict[str, Plain] = {}
        for key_node, value_node in node.value:
            key = self._key(key_node, path)
            if key is None:
                continue
            if key in data:
                first = self.places[*path, key].line
                self._add(key_node, (*path, key), f"is here twice, first on line {first}")
                continue
            self.places[*path, key] = _place(key_node)
            data[key] = self.value(value_node, (*path, key))
        return data

    def _key(self, node: yaml.Node, path: Path) -> str | None:
        if not isinstance(node, yaml.ScalarNode):
            self._add(node, path, "a key must be a single word")
            return None
        if node.tag == f"{_STANDARD}merge":
            self._add(node, path, "merging with '<<' is not supported", "write the settings out")
            return None
        self._check_tag(node, path)
        return _text(node)

    def _check_tag(self, node: yaml.Node, path: Path) -> None:
        kind = node.tag.removeprefix(_STANDARD)
        if kind not in _KINDS[type(node)] or kind == node.tag:
            message = f"the tag {shown(node.tag)} is not supported"
            self._add(node, path, message, "quote a value that begins with !")

    def _add(self, node: yaml.Node, path: Path, message: str, hint: str = "") -> None:
        problem = Problem(
            file=self.name, place=_place(node), field=field_name(path), message=message, hint=hint
        )
        self._problems.append(problem)


def _place(node: yaml.Node) -> Place:
    return Place(node.start_mark.line + 1, node.start_mark.column + 1)


def _mistake(text: str, node: yaml.Node) -> yaml.MarkedYAMLError:
    return yaml.composer.ComposerError(problem=text, problem_mark=node.start_mark)


def _text(node: yaml.ScalarNode) -> str:
    text: str = node.value
    if _SURROGATE.search(text):
        raise _mistake("an escape stands for half a character", node)
    return text


def _scalar(node: yaml.ScalarNode) -> Plain:
    text = _text(node)
    match node.tag.removeprefix(_STANDARD):
        case "null":
            return None
        case "bool" if text.lower() in {"true", "false"}:
            return text.lower() == "true"
        case "int" if _NUMBER.fullmatch(text):
            return int(text)
    return text


def _syntax_problem(name: str, error: yaml.MarkedYAMLError) -> Problem:
    mark = error.problem_mark or error.context_mark
    place = Place(mark.line + 1, mark.column + 1) if mark else Place(1, 1)
    problem = error.problem or "is no valid YAML"
    fitting = (row[1:] for row in _EXPLANATIONS if row[0] in problem)
    message, hint = next(fitting, (problem, ""))
    return Problem(
        file=name,
        place=place,
        field=f"column {place.column}",
        message=message or problem,
        hint=hint,
    )


def _letter_problem(source: Source, position: int) -> Problem:
    before = source.text[:position]
    place = Place(before.count("\n") + 1, position - (before.rfind("\n") + 1) + 1)
    message = f"the character {source.text[position]!a} may not stand in YAML"
    return Problem(file=source.name, place=place, field=f"column {place.column}", message=message)
