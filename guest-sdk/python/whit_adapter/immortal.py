"""Makes the objects that a component begins with immortal, as `None` is (PEP 683):
who uses one does not count it. Each count is a write, all over the interpreter's
memory, and what a request writes to has to be made new after it.

The interpreter has no function for that. So `find` notes at build time where the
objects are, in the memory that goes into the component, and `apply` sets their
counts there.

An object that was made when the function was built is never destroyed, then. So
it is with all that a component holds when a request has been answered.
"""

import gc
import struct
import sys
import types
import zlib
from array import array
from bisect import bisect_right

# Of the interpreter that components have (`Include/refcount.h`): a count of 32 bits
# is the first of an object, and one from MINIMUM on is left as it is.
VERSION = (3, 14)
MINIMUM = 1 << 30
IMMORTAL = 5 << 28
# What is more is no count.
COUNT_MAX = 1 << 20
# More than there is of notes, in bytes.
NOTE_MAX = 1 << 26
HEAD = struct.Struct("<IIII")
PAIR = struct.Struct("<II")
ADDRESS = 0xFFFFFFFF
# As it is here it is in the memory too, as a constant.
MARK = b"the objects that are immortal"

# Where the objects are, and a mark with what tells that, to be found in the memory.
found = None


def mark():
    return bytes(byte ^ 0xFF for byte in MARK)


def find():
    """Notes all objects that there are, in the interpreter that components have."""
    global found
    if sys.version_info[:2] != VERSION:
        return
    noted = walk()
    place, count = noted.buffer_info()
    found = mark() + HEAD.pack(place, count * noted.itemsize, zlib.crc32(noted), id(None)), noted


def walk():
    """Where each object is that can be reached, followed by where its type is."""
    seen, noted, left = set(), array("I"), [sys.modules]
    objects = gc.get_objects()
    own = {id(seen), id(left), id(objects)}
    left.extend(one for one in objects if id(one) not in own)
    del objects
    while left:
        one = left.pop()
        if id(one) not in seen:
            seen.add(id(one))
            noted.extend((id(one) & ADDRESS, id(type(one)) & ADDRESS))
            left.extend(gc.get_referents(one))
            if isinstance(one, types.CodeType):
                # The collector does not look into code.
                left += (one.co_consts, one.co_names, one.co_name, one.co_qualname)
                left += (one.co_filename, one.co_linetable, one.co_exceptiontable)
    return noted


def apply(component):
    """Sets the counts of the objects that were noted in a component's memory, a
    bytearray of all of it. Returns how many they were: without a note, none."""
    memory = Memory(component)
    for start in memory.find(mark()):
        place, size, checksum, none = HEAD.unpack(memory.read(start + len(MARK), HEAD.size))
        if size > NOTE_MAX or size % PAIR.size:
            continue
        noted = memory.read(place, size)
        if zlib.crc32(noted) == checksum and memory.head(none)[0] >= MINIMUM:
            memory.write(place, bytes(size))
            return sum(memory.immortalise(*pair) for pair in PAIR.iter_unpack(noted))
    return 0


class Memory:
    """The memory that a component begins with, where the component has it."""

    def __init__(self, component):
        self._bytes = component
        # Address, length and place of each piece.
        self._pieces = sorted(pieces(component, 0, len(component)))

    def find(self, mark):
        """The addresses of a mark."""
        for address, length, place in self._pieces:
            at = self._bytes.find(mark, place, place + length)
            while at >= 0:
                yield address + at - place
                at = self._bytes.find(mark, at + 1, place + length)

    def read(self, address, size):
        """What is at an address. Between two pieces is nothing but zeros."""
        data = bytearray(size)
        for inside, outside in self._parts(address, size):
            data[inside] = self._bytes[outside]
        return bytes(data)

    def write(self, address, data):
        for inside, outside in self._parts(address, len(data)):
            self._bytes[outside] = data[inside]

    def head(self, address):
        """What an object begins with: its count, and where its type is."""
        return PAIR.unpack(self.read(address, PAIR.size))

    def immortalise(self, address, kind):
        # Some of those that were there are gone, and others may be in their place:
        # where one ends its count is 0, and what is behind it soon another.
        count, now = self.head(address)
        is_whole = len(list(self._parts(address, PAIR.size))) == 1
        if now != kind or not 0 < count < COUNT_MAX or not is_whole:
            return False
        self.write(address, IMMORTAL.to_bytes(4, "little"))
        return True

    def _parts(self, address, size):
        """Each part of a range that there is: within the range, and in the component."""
        number = max(bisect_right(self._pieces, (address, sys.maxsize)) - 1, 0)
        for start, length, place in self._pieces[number:]:
            if start >= address + size:
                break
            begin, end = max(start, address), min(start + length, address + size)
            if begin < end:
                inside = slice(begin - address, end - address)
                yield inside, slice(begin - start + place, end - start + place)


# Of sections, and of the first bytes of data in a module (the binary format of the
# core specification and of the component model).
MODULE, COMPONENT, DATA = 1, 4, 11
ACTIVE, PASSIVE, ACTIVE_IN = 0, 1, 2
I32_CONST, END = 0x41, 0x0B


def pieces(component, place, end):
    """What the modules of a component put at fixed addresses."""
    for section, start, stop in sections(component, place, end):
        if section == COMPONENT:
            yield from pieces(component, start, stop)
        elif section == MODULE:
            for inner, data, _ in sections(component, start, stop):
                if inner == DATA:
                    yield from segments(component, data)


def sections(component, place, end):
    place += 8
    while place < end:
        section = component[place]
        size, start = unsigned(component, place + 1)
        yield section, start, start + size
        place = start + size


def segments(component, place):
    count, place = unsigned(component, place)
    for _ in range(count):
        kind, place = unsigned(component, place)
        if kind == ACTIVE_IN:
            _, place = unsigned(component, place)
        address = None
        if kind != PASSIVE:
            operator = component[place]
            number, place = unsigned(component, place + 1)
            if operator == I32_CONST:
                address = number
            if component[place] != END:
                raise ValueError("an offset that is no constant")
            place += 1
        size, place = unsigned(component, place)
        if address is not None:
            yield address, size, place
        place += size


def unsigned(component, place):
    """A number in LEB128, and where it ends. Addresses are below 2 GiB."""
    number = shift = 0
    while True:
        byte = component[place]
        place += 1
        number |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return number, place
