"""Reading TensorBoard event files, without the package that wrote them but for its protobuf classes."""

from __future__ import annotations

import struct
from collections.abc import Iterator

from tensorboardX.proto.event_pb2 import Event


def crc32c(data: bytes) -> int:
    """Castagnoli's checksum, bit by bit."""
    value = 0xFFFFFFFF
    for byte in data:
        value ^= byte
        for _ in range(8):
            value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)
    return value ^ 0xFFFFFFFF


def masked(data: bytes) -> int:
    value = crc32c(data)
    return ((value >> 15 | value << 17) + 0xA282EAD8) & 0xFFFFFFFF


def events(data: bytes) -> Iterator[Event]:
    """The events of a file: each has its length, the checksum of that, itself, and its own checksum."""
    while data:
        size, check = struct.unpack("<QI", data[:12])
        body, after = data[12 : 12 + size], data[12 + size : 16 + size]
        assert (check, struct.unpack("<I", after)[0]) == (masked(data[:8]), masked(body))
        yield Event.FromString(body)
        data = data[16 + size :]


def points(data: bytes) -> dict[str, list[tuple[int, float]]]:
    """Steps and values by tag."""
    head, *rest = events(data)
    assert head.file_version == "brain.Event:2"
    found: dict[str, list[tuple[int, float]]] = {}
    for event in rest:
        for value in event.summary.value:
            found.setdefault(value.tag, []).append((event.step, value.simple_value))
    return found
