# SPDX-License-Identifier: Apache-2.0
"""JSON as types: all that the daemon can say is understood, and nothing else.

The annotations of what is converted are real objects (no postponed evaluation).
"""

import dataclasses
import json
from dataclasses import dataclass
from types import NoneType, UnionType
from typing import Any, get_args, get_origin

import pytest
from asyncvarlink import FileDescriptor, FileDescriptorArray
from asyncvarlink.conversion import FileDescriptorVarlinkType
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.unit.api.declared import METHODS
from zoned.api.convert import WrongShape, converted
from zoned.api.interfaces_buffers import Buffer
from zoned.api.types_buffers import BufferInfo, LeaseInfo, SegmentInfo


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    id: int
    part: float | None = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Zone:
    name: str
    ok: bool | None
    nodes: list[Node]
    sizes: dict[str, int]


ZONE: dict[str, Any] = {
    "name": "db",
    "ok": True,
    "nodes": [{"id": 1, "part": 1}, {"id": 2}],
    "sizes": {"a": 5},
}


def test_all_is_as_declared() -> None:
    found = converted([ZONE], list[Zone], "zones")
    nodes = [Node(id=1, part=1.0), Node(id=2, part=None)]
    assert found == [Zone(name="db", ok=True, nodes=nodes, sizes={"a": 5})]
    assert type(found[0].nodes[0].part) is float
    assert converted(None, NoneType, "x") is None
    either: Any = Zone | None
    assert converted(None, either, "x") is None
    assert converted(ZONE, either, "x") == found[0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": 5}, r"int as zone\.name, not str"),
        ({"name": None}, r"NoneType as zone\.name, not str"),
        ({"ok": 1}, r"int as zone\.ok, not bool"),
        ({"nodes": {}}, r"dict as zone\.nodes, not list"),
        ({"nodes": [7]}, r"int as zone\.nodes\[0\], not Node"),
        ({"nodes": [{"id": 1}, {"part": 1.5}]}, r"no zone\.nodes\[1\]\.id"),
        ({"nodes": [{"id": True}]}, r"bool as zone\.nodes\[0\]\.id, not int"),
        ({"nodes": [{"id": 1.0}]}, r"float as zone\.nodes\[0\]\.id, not int"),
        ({"nodes": [{"id": 1, "part": "x"}]}, r"str as zone\.nodes\[0\]\.part, not float"),
        ({"nodes": [{"id": 1, "part": True}]}, r"bool as zone\.nodes\[0\]\.part, not float"),
        ({"nodes": [{"id": 1, "part": 10**400}]}, r"too large .* zone\.nodes\[0\]\.part"),
        ({"sizes": []}, r"list as zone\.sizes, not dict"),
        ({"sizes": {"b": "x"}}, r"str as zone\.sizes\.b, not int"),
        ({"colour": "red"}, r"zone\.colour, which is unknown here"),
    ],
)
def test_what_is_not_as_declared(change: dict[str, Any], message: str) -> None:
    with pytest.raises(WrongShape, match=f"^{message}$"):
        converted(ZONE | change, Zone, "zone")


@pytest.mark.parametrize("value", [5, [], "x", None, {}])
def test_what_is_no_such_thing_at_all(value: object) -> None:
    with pytest.raises(WrongShape):
        converted(value, Zone, "zone")


def values(kind: Any) -> st.SearchStrategy[Any]:
    """Return what a field of this type may hold."""
    if dataclasses.is_dataclass(kind):
        assert isinstance(kind, type)
        fields = {field.name: values(field.type) for field in dataclasses.fields(kind)}
        return st.builds(kind, **fields)
    simple = {
        int: st.integers(),
        float: st.floats(allow_nan=False),
        str: st.text(),
        bool: st.booleans(),
        NoneType: st.none(),
    }
    if kind in simple:
        return simple[kind]
    inner = [values(each) for each in get_args(kind)]
    if get_origin(kind) is UnionType:
        return st.one_of(inner)
    if get_origin(kind) is dict:
        return st.dictionaries(*inner, max_size=2)
    assert get_origin(kind) is list, kind
    return st.lists(*inner, max_size=2)


# Many methods give the same.
ONE_OF_EACH = {
    str(method.result): name for name, method in METHODS.items() if method.result is not Buffer
}


@given(st.data())
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@pytest.mark.parametrize("name", ONE_OF_EACH.values())
def test_what_the_daemon_says_is_understood(name: str, data: st.DataObject) -> None:
    method = METHODS[name]
    if method.result is NoneType:
        assert method.reply.tojson({}) == {}
        return
    said = data.draw(values(method.result))
    sent: Any = method.reply.tojson({method.name_of_result: said})
    ((where, heard),) = json.loads(json.dumps(sent)).items()
    assert converted(heard, method.result, where) == said


@pytest.mark.parametrize("exported", [False, True])
def test_descriptors_are_heard_as_their_indices(*, exported: bool) -> None:
    lease = LeaseInfo(
        number=1,
        reservation="x",
        pid=2,
        uid=3,
        user="jo",
        size=4096,
        segments=[SegmentInfo(address=1 << 40, size=4096, offset=0)],
        ending=False,
    )
    method = METHODS["DmaBuffers.Alloc"]
    with FileDescriptorArray.new_managed() as files:
        file, dmabuf = FileDescriptor.make_pipe()
        said = Buffer(lease=lease, granule=4096, file=file, dmabuf=dmabuf if exported else None)
        sent: Any = method.reply.tojson({"buffer": said}, {FileDescriptorVarlinkType: files})
        assert list(files) == [file, dmabuf][: 1 + exported]
        file.close()
        dmabuf.close()
    heard = converted(json.loads(json.dumps(sent))["buffer"], BufferInfo, "buffer")
    assert heard == BufferInfo(lease=lease, granule=4096, file=0, dmabuf=1 if exported else None)
