"""Pickles that want to run something, or to exhaust the machine: all are refused."""

import builtins
import codecs
import collections
import importlib
import os
import pickle
import struct
import subprocess
import sys
import tracemalloc
import zipfile
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from ce_align.errors import DataError
from ce_align.models.torchfiles import read_torch_file


class Calls:
    """Pickles as a call of `function` with `arguments`."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def written(path: Path, pickled: bytes, **storages: bytes) -> Path:
    """File of torch.save whose pickle is stated."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", pickled)
        for key, content in storages.items():
            archive.writestr(f"archive/data/{key[1:]}", content)
    return path


def dumped(value, protocol=2) -> bytes:
    return pickle.dumps({"state": {"model": {}, "integrations": value}}, protocol)


def named(module: str, name: str, arguments: bytes = b")") -> bytes:
    """Pickle that calls something by its name, importable here or not."""
    head = b"\x80\x02c" + f"{module}\n{name}\n".encode()
    return head + arguments + b"R."


def stacked(module: str, name: str, arguments: bytes) -> bytes:
    """The same with the instruction of protocol 4."""
    texts = b"".join(b"\x8c" + bytes([len(t)]) + t.encode() for t in (module, name))
    return b"\x80\x04" + texts + b"\x93" + arguments + b"R."


TOUCH = b"X\x08\x00\x00\x00touch ./\x85"
STORAGE = b"(X\x07\x00\x00\x00storageq\x00ctorch\nFloatStorage\nX\x01\x00\x00\x000"
PLACE = b"X\x03\x00\x00\x00cpu"


def tensor(n_elements: bytes, offset: bytes, size: bytes, stride: bytes) -> bytes:
    """Pickle of one float32 tensor that declares what is stated."""
    storage = STORAGE + PLACE + n_elements + b"tQ"
    flags = b"\x89ccollections\nOrderedDict\n)R"
    body = b"(" + storage + offset + size + stride + flags + b"t"
    return b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n" + body + b"R."


MINUS = b"J\xff\xff\xff\xff\x85"
TERA = b"\x8a\x06" + (2**40).to_bytes(6, "little")
HOSTILE = {
    "os.system": dumped(Calls(os.system, "touch here")),
    "os.system, protocol 0": dumped(Calls(os.system, "touch here"), 0),
    "os.system, protocol 4": dumped(Calls(os.system, "touch here"), 4),
    "os.system, protocol 5": dumped(Calls(os.system, "touch here"), 5),
    "posix": named("posix", "system", TOUCH),
    "nt": named("nt", "system", TOUCH),
    "eval": dumped(Calls(eval, "open('here', 'w')")),
    "exec": dumped(Calls(exec, "open('here', 'w')")),
    "__import__": dumped(Calls(builtins.__import__, "canary")),
    "import_module": dumped(Calls(importlib.import_module, "canary")),
    "getattr": dumped(Calls(getattr, "", "join")),
    "open": dumped(Calls(open, "here", "w")),
    "python 2 builtins": named("__builtin__", "eval", TOUCH),
    "Popen": dumped(Calls(subprocess.Popen, ["touch", "here"])),
    "write_text": dumped(Calls(Path.write_text, Path("here"), "")),
    "nested": dumped([{"a": (1, [Calls(os.system, "touch here")])}]),
    "as argument": dumped(Calls(list, Calls(os.system, "touch here"))),
    "inside OrderedDict": dumped(collections.OrderedDict(a=Calls(eval, "1"))),
    "canary import": named("canary", "Thing"),
    "canary function": named("canary", "run"),
    "dotted name": stacked("composer.core", "os.system", TOUCH),
    "function of a trainer": stacked("composer.utils", "run_command", TOUCH),
    "torch.load": named("torch", "load", TOUCH),
    "torch.hub.load": named("torch.hub", "load", TOUCH),
    "bytes as storage": named("torch.storage", "_load_from_bytes", TOUCH),
    "typed rebuild": named("torch._tensor", "_rebuild_from_type_v2", TOUCH),
    "numpy runstring": named("numpy.testing._private.utils", "runstring", TOUCH),
    "timeit": named("timeit", "timeit", TOUCH),
    "runpy": named("runpy", "_run_code", TOUCH),
    "partial": named("functools", "partial", TOUCH),
    "pip": named("pip", "main", TOUCH),
    "pandas": named("pandas", "read_pickle", TOUCH),
    "call of a result": named("collections", "OrderedDict")[:-1] + TOUCH + b"R.",
    "instance by INST": b"(X\x01\x00\x00\x00ai" + b"os\nsystem\n.",
    "instance by OBJ": b"(cos\nsystem\nX\x01\x00\x00\x00ao.",
    "extension registry": b"\x80\x02\x82\x01.",
    "text persistent id": b"Pstorage\n.",
    "attributes of a name": b"\x80\x02ccollections\nOrderedDict\n}b.",
    "module as state": b"\x80\x02cposixpath\nos\n.",
    "giant storage": tensor(TERA, b"K\x00", TERA + b"\x85", b"K\x01\x85"),
    "overlapping strides": tensor(b"K\x01", b"K\x00", TERA + b"\x85", b"K\x00\x85"),
    "beyond its storage": tensor(b"K\x01", b"K\x01", b"K\x01\x85", b"K\x01\x85"),
    "negative stride": tensor(
        b"K\x01", b"K\x00", b"K\x01\x85", b"J\xff\xff\xff\xff\x85"
    ),
    "size no tuple": tensor(b"K\x01", b"K\x00", b"K\x01", b"K\x01\x85"),
    "giant bytearray": dumped(Calls(bytearray, 10**13)),
    "giant bytes declared": b"\x80\x04\x8e" + struct.pack("<Q", 2**50) + b"a.",
    "giant memo index": b"\x80\x02Nr\xff\xff\xff\xff0.",
    "keys that nest": b"\x80\x02})" + b"2\x86" * 60 + b"Ns.",
    "depth": b"\x80\x02" + b"]" * 5000 + b"a" * 4999 + b".",
    "empty": b"",
    "no end": b"\x80\x02N",
    "no stack": b"\x80\x02R.",
}

QUINTILLION = b"\x8a\x08" + (2**62 - 1).to_bytes(8, "little")


def text(content: str) -> bytes:
    """Instruction that pushes a short text."""
    return b"\x8c" + bytes([len(content)]) + content.encode()


def persistent(identity: bytes) -> bytes:
    """Pickle whose persistent identifier stands for a tensor's storage."""
    return b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n((" + identity + b"tQ."


def repeated(call: bytes, size: int, times: int) -> bytes:
    """Pickle that hands one large container to a call again and again."""
    items = b"(" + b"K\x01" * size + b"l" if b"set" in call else b""
    items = items or b"X" + struct.pack("<I", size) + b"a" * size
    head = b"\x80\x02" + items + b"q\x000]q\x01"
    codec = b"" if b"set" in call else b"X\x06\x00\x00\x00latin1"
    ending = b"\x85" if b"set" in call else b"\x86"
    return head + (call + b"h\x00" + codec + ending + b"Ra") * times + b"."


#: Names of functions and classes that an honest checkpoint never needs.
GADGETS = (
    *("builtins compile", "builtins map", "builtins type", "builtins breakpoint"),
    *("builtins input", "builtins vars", "builtins setattr", "builtins apply"),
    *("builtins getattr", "operator attrgetter", "operator methodcaller"),
    *("os popen", "os execv", "os remove", "os _wrap_close", "posix execve"),
    *("subprocess check_output", "subprocess getoutput", "pty spawn"),
    *("shutil rmtree", "shutil move", "socket create_connection", "socket socket"),
    *("ctypes CDLL", "_ctypes dlopen", "code InteractiveInterpreter"),
    *("codeop compile_command", "pdb run", "bdb Bdb", "cProfile run", "trace Trace"),
    *("profile Profile", "doctest debug_script", "asyncio run", "signal signal"),
    *("multiprocessing.util spawnv_passfds", "concurrent.futures ProcessPoolExecutor"),
    *("logging.config listen", "threading Thread", "sched scheduler"),
    *("types CodeType", "types FunctionType", "types MethodType", "marshal loads"),
    *("pickle loads", "pickle Unpickler", "_pickle Unpickler", "shelve open"),
    *("copyreg add_extension", "copyreg __newobj__", "copyreg pickle"),
    *("codecs open", "codecs decode", "_codecs lookup", "_codecs register"),
    *("zipimport zipimporter", "importlib.util spec_from_file_location"),
    *("urllib.request urlopen", "http.client HTTPConnection", "smtplib SMTP"),
    *("webbrowser open", "tempfile NamedTemporaryFile", "zipfile ZipFile"),
    *("pathlib Path.unlink", "io FileIO", "_io open_code", "fileinput input"),
    *("sqlite3 connect", "turtle Screen", "lib2to3.pgen2.pgen ParserGenerator"),
    *("torch compile", "torch.jit load", "torch.package PackageImporter.load_pickle"),
    *("torch.serialization load", "torch.serialization _legacy_load"),
    *("torch.utils.cpp_extension load_inline", "torch.ops load_library"),
    *("torch._utils _rebuild_device_tensor_from_numpy", "torch.storage _new_dtensor"),
    *("torch._utils _rebuild_sparse_tensor", "torch._tensor _rebuild_from_type"),
    *("torch.distributed.rpc.internal _run_function", "torch.fx._symbolic_trace wrap"),
    *("torch.multiprocessing.reductions rebuild_storage_fd", "torch._dynamo optimize"),
    *("numpy load", "numpy fromfile", "numpy.distutils.exec_command exec_command"),
    *("numpy.f2py compile", "numpy.ctypeslib load_library", "numpy.lib.npyio load"),
    *("joblib load", "dill loads", "dill._dill _create_function", "cloudpickle load"),
    *("cloudpickle.cloudpickle _make_function", "pydoc pipepager", "pip main"),
    *("scipy.io loadmat", "sklearn.utils load", "IPython start_ipython", "h5py File.x"),
    *("setuptools.sandbox run_setup", "commands getoutput", "nt popen"),
)
HOSTILE |= {f"calls {name}": named(*name.split(), TOUCH) for name in GADGETS}
HOSTILE |= {
    "names os.system as a value": b"\x80\x02}" + b"K\x01cos\nsystem\ns.",
    "state of an object": b"\x80\x02clab\nThing\n)\x81}cos\nsystem\nNsb.",
    "constructor of an object": b"\x80\x02cos\n_wrap_close\n)\x81.",
    "constructor with names": b"\x80\x04cos\n_wrap_close\n)}\x92.",
    "getattr chain": b"\x80\x02cbuiltins\ngetattr\ncbuiltins\n__import__\n"
    b"X\x02\x00\x00\x00os\x85RX\x06\x00\x00\x00system\x86R" + TOUCH + b"R.",
    "name from a list": b"\x80\x04]" + text("system") + b"\x93.",
    "class within a module": stacked("lab", "sys.Modules", TOUCH),
    "magic method of a class": stacked("lab", "Thing.__init__.__globals__", TOUCH),
    "reconstruction of a class": b"\x80\x02ccopyreg\n_reconstructor\n"
    b"cos\n_wrap_close\ncbuiltins\nobject\nN\x87R.",
    "call of an object": b"\x80\x02clab\nThing\n)R" + TOUCH + b"R.",
    "call of a storage": b"\x80\x02" + STORAGE + PLACE + b"K\x01tQ" + TOUCH + b"R.",
    "state of a tensor": tensor(b"K\x01", b"K\x00", b"K\x01\x85", b"K\x01\x85")[:-1]
    + b"}X\x09\x00\x00\x00__class__Nsb.",
    "state of a list": b"\x80\x02]}b.",
    "storage of a gadget": persistent(
        b"X\x07\x00\x00\x00storagecos\nsystem\nX\x01\x00\x00\x000" + PLACE + b"K\x01"
    ),
    "storage of an unknown class": persistent(
        b"X\x07\x00\x00\x00storageclab\nStorage\nX\x01\x00\x00\x000" + PLACE + b"K\x01"
    ),
    "module as persistent id": persistent(
        b"X\x06\x00\x00\x00modulectorch\nFloatStorage\nX\x01\x00\x00\x000"
        + PLACE
        + b"K\x01"
    ),
    "persistent id that is a text": b"\x80\x02X\x01\x00\x00\x000Q.",
    "storage outside the archive": tensor(
        b"K\x01", b"K\x00", b"K\x01\x85", b"K\x01\x85"
    ).replace(b"X\x01\x00\x00\x000", b"X\x0c\x00\x00\x00../../../etc"),
    "negative count": tensor(
        b"J\xff\xff\xff\xff", b"K\x00", b"K\x01\x85", b"K\x01\x85"
    ),
    "negative offset": tensor(b"K\x01", MINUS[:-1], b"K\x01\x85", b"K\x01\x85"),
    "negative size": tensor(b"K\x01", b"K\x00", MINUS, b"K\x01\x85"),
    "giant offset": tensor(b"K\x01", QUINTILLION, b"K\x01\x85", b"K\x01\x85"),
    "giant empty tensor": tensor(
        b"K\x01", b"K\x00", b"K\x00" + TERA + b"\x86", b"K\x01K\x01\x86"
    ),
    "many dimensions": tensor(
        b"K\x01",
        b"K\x00",
        b"(" + QUINTILLION * 2000 + b"t",
        b"(" + b"K\x00" * 2000 + b"t",
    ),
    "extension of two bytes": b"\x80\x02\x83\x01\x00.",
    "extension of four bytes": b"\x80\x02\x84\x01\x00\x00\x00.",
    "buffer out of band": b"\x80\x05\x97.",
    "read-only buffer": b"\x80\x05\x97\x98.",
    "codec that unpacks": b"\x80\x02c_codecs\nencode\nX\x02\x00\x00\x00hi"
    b"X\x03\x00\x00\x00bz2\x86R.",
    "one text copied often": repeated(b"c_codecs\nencode\n", 60_000, 3000),
    "one list copied often": repeated(b"cbuiltins\nset\n", 5000, 5000),
    "giant text declared": b"\x80\x04\x8d" + struct.pack("<Q", 2**50) + b"a.",
    "giant array declared": b"\x80\x05\x96" + struct.pack("<Q", 2**62) + b"a.",
    "giant frame declared": b"\x80\x04\x95" + struct.pack("<Q", 2**60),
    "giant number": b"\x80\x02\x8b" + struct.pack("<i", 2**31 - 1) + b"a.",
    "negative length": b"\x80\x02\x8b" + struct.pack("<i", -5) + b"a.",
    "decimal of many digits": b"L" + b"9" * 100_000 + b"L\n.",
    "list within itself": b"\x80\x02]q\x00h\x00a.",
    "unknown instruction": b"\x80\x02\xff.",
    "mark alone": b"\x80\x02(.",
    "memo that is not there": b"\x80\x02h\x05.",
}

#: Events of the interpreter that reading weights must never cause.
FORBIDDEN = {
    *("os.system", "os.exec", "os.fork", "os.posix_spawn", "subprocess.Popen"),
    *("os.remove", "os.rename", "os.mkdir", "os.putenv", "shutil.rmtree"),
    *("socket.connect", "socket.getaddrinfo", "ctypes.dlopen", "marshal.loads"),
    *("exec", "compile", "import", "pickle.find_class", "code.__new__"),
}
_heard: list[str] | None = None


def _listen(event: str, arguments: tuple) -> None:
    if _heard is not None and event in FORBIDDEN:
        _heard.append(f"{event} {arguments[:1]}")


# Python imports its codecs when they are first needed.
for _codec in ("raw_unicode_escape", "latin1", "ascii", "utf_8", "cp437"):
    codecs.lookup(_codec)
sys.addaudithook(_listen)  # it cannot be removed, but it can be deaf


@contextmanager
def listening():
    """Collect everything forbidden that the interpreter does."""
    global _heard
    _heard = heard = []
    try:
        yield heard
    finally:
        _heard = None


@pytest.fixture
def canary(tmp_path, monkeypatch):
    """Folder in which anything that runs would leave a file."""
    folder = tmp_path / "canary"
    folder.mkdir()
    (folder / "canary.py").write_text("open('here', 'w')\nThing = list\n")
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(str(folder))
    sys.modules.pop("canary", None)
    return folder


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_pickle_is_refused_in_one_line_and_runs_nothing(name, canary, tmp_path):
    path = written(tmp_path / "hostile.pt", HOSTILE[name], _0=bytes(4))
    modules = set(sys.modules)
    tracemalloc.start()
    try:
        with pytest.raises(DataError) as refusal, listening() as heard:
            read_torch_file(path)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    message = str(refusal.value)
    assert "\n" not in message and len(message) < 400
    assert heard == []
    assert [p.name for p in canary.iterdir()] == ["canary.py"]
    assert set(sys.modules) == modules
    assert peak < 20e6


@pytest.mark.parametrize(
    "name", ["os.system", "eval", "exec", "nested", "canary import", "write_text"]
)
def test_the_same_pickle_does_run_where_pickle_reads_it(name, canary):
    with listening() as heard, suppress(Exception):
        pickle.loads(HOSTILE[name])
    assert (canary / "here").exists()
    assert heard != []


def test_class_of_an_unknown_package_is_inert_beside_the_weights(canary, tmp_path):
    thing = b"ccanary\nThing\n)\x81}X\x01\x00\x00\x00bK\x01sb"
    pickled = b"\x80\x04}" + text("a") + thing + b"s" + text("w") + b"K\x07s."
    path = written(tmp_path / "a.pt", pickled)
    assert read_torch_file(path, lambda content: content["w"]) == 7
    with pytest.raises(DataError, match=r"canary\.Thing stands where tensors"):
        read_torch_file(path)
    assert "canary" not in sys.modules


def test_refusal_names_what_the_file_wanted(tmp_path):
    path = written(tmp_path / "hostile.pt", named("os", "system", TOUCH))
    with pytest.raises(DataError, match=r"hostile\.pt is refused: it names os\.system"):
        read_torch_file(path)


@pytest.mark.parametrize("name", ["os.system", "eval", "giant storage", "no end"])
def test_hostile_legacy_file_is_refused(name, canary, tmp_path):
    head = b"".join(
        pickle.dumps(part, 2)
        for part in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True})
    )
    path = tmp_path / "legacy.pt"
    path.write_bytes(head + HOSTILE[name] + pickle.dumps(["0"], 2) + bytes(12))
    with pytest.raises(DataError):
        read_torch_file(path)
    assert [p.name for p in canary.iterdir()] == ["canary.py"]
