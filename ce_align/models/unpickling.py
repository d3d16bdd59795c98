"""An interpreter of pickles that knows no callables.

A pickle is a program: whoever runs it with :mod:`pickle`, even with a restricted
``find_class``, calls what the file names. This interpreter reads the instructions with
:mod:`pickletools` and only ever builds plain containers and records of its own; it
imports nothing and calls nothing that a file names, so there is no gadget to reach.

What a file may name is a second rule, of :mod:`ce_align.models.picklenames`.
"""

import pickletools
from collections.abc import Callable
from typing import IO, Any

from ce_align.errors import DataError
from ce_align.models.picklenames import (
    DICTS,
    ENCODE,
    PARAMETER_BUILDER,
    SETS,
    SIZE,
    STORAGES,
    TENSOR_BUILDERS,
    VALUES,
    Global,
    Inert,
    StorageRecord,
    TensorRecord,
    check_global,
    check_key,
    is_class,
)

__all__ = ["interpret"]

#: A checkpoint has many thousands of instructions; more than this are no checkpoint.
MAX_INSTRUCTIONS = 5_000_000


#: Names whose call copies what it is given.
COPYING = DICTS | SETS | {ENCODE}


def _pairs(items: list[Any]) -> dict[Any, Any]:
    if len(items) % 2:
        raise DataError("it has a key without a value")
    keys = map(check_key, items[::2])
    return dict(zip(keys, items[1::2], strict=True))


class _Machine:
    """Stack, marks and memo of one pickle; one method for each kind of instruction."""

    def __init__(self, storages: dict[str, StorageRecord]) -> None:
        self.storages = storages
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}
        self.position = 0  # bytes read so far
        self.n_copied = 0  # items and characters that calls were given

    def pop(self) -> Any:
        return self.stack.pop()

    def pop_mark(self) -> list[Any]:
        start = self.marks.pop()
        items = self.stack[start:]
        del self.stack[start:]
        return items

    def push_tuple(self, length: int) -> None:
        items = [self.pop() for _ in range(length)]
        self.stack.append(tuple(reversed(items)))

    def memoize(self, index: int | None) -> None:
        self.memo[len(self.memo) if index is None else index] = self.stack[-1]

    def append(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if type(target) is list:
            target.extend(items)
        elif type(target) is not Inert:
            raise DataError(f"it appends to a {type(target).__name__}")

    def set_items(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if type(target) is dict:
            target.update(_pairs(items))
        elif type(target) is not Inert:
            raise DataError(f"it sets items of a {type(target).__name__}")

    def add_items(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if type(target) is not set:
            raise DataError(f"it adds items to a {type(target).__name__}")
        target.update(map(check_key, items))

    def reduce(self) -> None:
        arguments = self.pop()
        made_by = self.pop()
        if type(made_by) is not Global or type(arguments) is not tuple:
            raise DataError(f"it calls a {type(made_by).__name__}")
        if (made_by.module, made_by.name) in COPYING:
            sized = (str, list, tuple, set, dict)
            self.n_copied += sum(len(a) for a in arguments if type(a) in sized)
            # Honest files give each container to one call; repetition is a bomb.
            if self.n_copied > self.position:
                raise DataError("it copies more than it holds")
        self.stack.append(_rebuild(made_by, arguments))

    def new_object(self, n_arguments: int) -> None:
        del self.stack[len(self.stack) - n_arguments :]
        made_by = self.pop()
        if type(made_by) is not Global:
            raise DataError(f"it makes an object of a {type(made_by).__name__}")
        is_dict = (made_by.module, made_by.name) in DICTS
        self.stack.append({} if is_dict else _inert(made_by))

    def build(self) -> None:
        self.pop()  # attributes, which no record keeps
        if type(self.stack[-1]) not in (Inert, dict):
            raise DataError(f"it sets attributes of a {type(self.stack[-1]).__name__}")

    def persistent(self) -> None:
        storage = _storage(self.pop())
        if self.storages.setdefault(storage.key, storage) != storage:
            raise DataError("it declares one storage in two ways")
        self.stack.append(storage)

    def push_global(self, text: str) -> None:
        module, _, name = text.partition(" ")
        self.stack.append(check_global(module, name))

    def push_stacked_global(self) -> None:
        name, module = self.pop(), self.pop()
        self.stack.append(check_global(module, name))


def _inert(made_by: Global) -> Inert:
    # Classes rebuild themselves; a function that a file wants called is suspect.
    known = (made_by.module, made_by.name) in VALUES
    if not known and not is_class(made_by.name):
        raise DataError(f"it calls the function {made_by}")
    return Inert(str(made_by))


def _rebuild(made_by: Global, arguments: tuple[Any, ...]) -> Any:
    """What calling a known name would give; an inert record for other allowed ones."""
    key = (made_by.module, made_by.name)
    if key in TENSOR_BUILDERS:
        storage, offset, size, stride = arguments[:4]
        return TensorRecord(storage, offset, size, stride)
    if key == PARAMETER_BUILDER:
        return arguments[0]
    if key in DICTS:
        given = arguments[-1] if arguments else ()
        pairs = given if type(given) is list else []
        return {check_key(name): value for name, value in pairs}
    if key in SETS:
        return set(map(check_key, arguments[0])) if arguments else set()
    if key == ENCODE and type(arguments[0]) is str and arguments[1:] == ("latin1",):
        return arguments[0].encode("latin1")
    if key == SIZE:
        return arguments[0]
    return _inert(made_by)


def _storage(identity: Any) -> StorageRecord:
    """Storage that a persistent identifier of ``torch.save`` stands for."""
    known = type(identity) is tuple and len(identity) in (5, 6)
    if not known or identity[0] != "storage" or type(identity[1]) is not Global:
        raise DataError("it refers to something that is no tensor storage")
    if identity[5:] not in ((), (None,)):
        raise DataError("it has views of storages, as only very old files do")
    kind, key, n_elements = identity[1].name, identity[2], identity[4]
    if kind not in STORAGES or type(key) is not str:
        raise DataError(f"it has a storage of kind {identity[1]}")
    if type(n_elements) is not int or n_elements < 0:
        raise DataError("it has a storage without a number of elements")
    return StorageRecord(key, kind, n_elements)


#: Instructions that push the value that stands in the file.
LITERALS = {
    *("INT", "LONG", "BININT", "BININT1", "BININT2", "LONG1", "LONG4"),
    *("FLOAT", "BINFLOAT", "STRING", "BINSTRING", "SHORT_BINSTRING"),
    *("UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"),
    *("BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8"),
}

#: Every other instruction that ``torch.save`` writes; those not here are refused.
INSTRUCTIONS: dict[str, Callable[[_Machine, Any], None]] = {
    "PROTO": lambda m, _: None,
    "FRAME": lambda m, _: None,
    "MARK": lambda m, _: m.marks.append(len(m.stack)),
    "POP": lambda m, _: m.stack.__delitem__(-1),
    "POP_MARK": lambda m, _: m.pop_mark().clear(),
    "DUP": lambda m, _: m.stack.append(m.stack[-1]),
    "NONE": lambda m, _: m.stack.append(None),
    "NEWTRUE": lambda m, _: m.stack.append(True),
    "NEWFALSE": lambda m, _: m.stack.append(False),
    "EMPTY_LIST": lambda m, _: m.stack.append([]),
    "LIST": lambda m, _: m.stack.append(m.pop_mark()),
    "APPEND": lambda m, _: m.append([m.pop()]),
    "APPENDS": lambda m, _: m.append(m.pop_mark()),
    "EMPTY_TUPLE": lambda m, _: m.stack.append(()),
    "TUPLE": lambda m, _: m.stack.append(tuple(m.pop_mark())),
    "TUPLE1": lambda m, _: m.push_tuple(1),
    "TUPLE2": lambda m, _: m.push_tuple(2),
    "TUPLE3": lambda m, _: m.push_tuple(3),
    "EMPTY_DICT": lambda m, _: m.stack.append({}),
    "DICT": lambda m, _: m.stack.append(_pairs(m.pop_mark())),
    "SETITEM": lambda m, _: m.set_items([m.stack.pop(-2), m.pop()]),
    "SETITEMS": lambda m, _: m.set_items(m.pop_mark()),
    "EMPTY_SET": lambda m, _: m.stack.append(set()),
    "ADDITEMS": lambda m, _: m.add_items(m.pop_mark()),
    "FROZENSET": lambda m, _: m.stack.append(set(map(check_key, m.pop_mark()))),
    "PUT": lambda m, index: m.memoize(index),
    "BINPUT": lambda m, index: m.memoize(index),
    "LONG_BINPUT": lambda m, index: m.memoize(index),
    "MEMOIZE": lambda m, _: m.memoize(None),
    "GET": lambda m, index: m.stack.append(m.memo[index]),
    "BINGET": lambda m, index: m.stack.append(m.memo[index]),
    "LONG_BINGET": lambda m, index: m.stack.append(m.memo[index]),
    "GLOBAL": lambda m, text: m.push_global(text),
    "STACK_GLOBAL": lambda m, _: m.push_stacked_global(),
    "REDUCE": lambda m, _: m.reduce(),
    "NEWOBJ": lambda m, _: m.new_object(1),
    "NEWOBJ_EX": lambda m, _: m.new_object(2),
    "BUILD": lambda m, _: m.build(),
    "BINPERSID": lambda m, _: m.persistent(),
}


def interpret(
    stream: IO[bytes], what: str, storages: dict[str, StorageRecord] | None = None
) -> Any:
    """Plain containers, records and tensors' records of the next pickle in a stream.

    Parameters
    ----------
    stream : at the first byte of a pickle; left after its last
    what : file name, for messages
    storages : collects every storage that the pickle declares, by key

    Raises
    ------
    DataError
        If the pickle names anything but tensors and plain data, or is damaged.
    """
    machine = _Machine({} if storages is None else storages)
    try:
        for count, (opcode, argument, position) in enumerate(
            pickletools.genops(stream)
        ):
            machine.position = position or 0
            if opcode.name == "STOP":
                return machine.pop()
            if count > MAX_INSTRUCTIONS:
                raise DataError(f"it has more than {MAX_INSTRUCTIONS:,} instructions")
            if opcode.name in LITERALS:
                machine.stack.append(argument)
            elif opcode.name in INSTRUCTIONS:
                INSTRUCTIONS[opcode.name](machine, argument)
            else:
                raise DataError(f"it has the instruction {opcode.name}")
    except DataError as error:
        raise DataError(
            f"{what} is refused: {error}; save the state_dict alone, or as safetensors"
        ) from None
    except (ValueError, IndexError, KeyError, TypeError, OverflowError) as error:
        detail = str(error).partition("\n")[0] or type(error).__name__
        raise DataError(f"{what} is damaged or no checkpoint: {detail}") from None
    raise DataError(f"{what} is damaged: its pickle has no end")
