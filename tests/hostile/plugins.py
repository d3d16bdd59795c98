"""Networks, recordings, similarities and measures that were registered, and that raise,
end the program, never end, or return nonsense."""

import json
import sys
from collections.abc import Callable, Iterator, MutableMapping, Sequence
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from ce_align import cli
from ce_align.cli import main
from ce_align.cli.app import COMMANDS
from ce_align.data import named
from ce_align.models import load
from ce_align.stages import measures, similarities
from ce_align.stages.measures import Measure
from ce_align.stages.quantities import Quantity
from ce_align.stages.similarities import Similarity

from .command_lines import toy_recording
from .harness import STATUSES, Case, Outcome

SCORE = (
    "score --model {} --recording toy.nc --layer 0 --regression ridge --splits 2 "
    "--stratify none --json"
)
#: What code of others may raise, as expressions.
RAISING = r"""
ValueError('x')
ValueError('y' * 10**7)
ValueError('\x1b[2J[/bold]\r')
RuntimeError('a\nb\n' * 999)
KeyError()
OSError(5)
FileNotFoundError(2, 'x', 'y')
BrokenPipeError()
TimeoutError()
MemoryError()
RecursionError()
StopIteration()
GeneratorExit()
SystemExit(0)
SystemExit('x')
BaseException('x')
AssertionError()
NotImplementedError()
ImportError('x')
AttributeError('x')
UnicodeDecodeError('x', b'y', 0, 1, 'z')
ExceptionGroup('g', [ValueError('x')])
Warning('x')
Unprintable()
"""
#: What it may return.
NONSENSE = """
None
3
-1
2**4000
1j
True
float('nan')
'x'
'y' * 10**6
b'x'
[]
{}
(1, 2)
range(3)
(x for x in ())
object()
Unprintable()
lambda x: x
torch.nn.Identity
torch.zeros(3)
np.zeros(3)
np.full((40, 40), np.inf)
"""
#: What a network may do with its input `x`.
PASSES = r"""
None
3
'x'
[x]
{'a': x}
(x, x)
x[:1]
x[:0]
x[:, :, :0]
x * np.nan
x * 0
x / 0
x * 1e38 * 1e38
x.double() * 1e308
x.int()
x.bool()
x.half()
x.to(torch.complex64)
x.to('meta')
x.to_sparse()
x.requires_grad_()
x.detach().numpy()
x.add_(1)
x.sum(0)
x.expand(9, *x.shape)
torch.cat([x, x])
torch.rand_like(x)
torch.zeros(())
torch.zeros(len(x), 0)
torch.ones(10**7)
print('\x1b[2J' * 10**5) or x
[print(k, end='\r') for k in range(10**4)] and x
"""
#: What a network may say of itself.
DESCRIPTIONS = r"""
None
3
[]
Unprintable()
{1: 2}
{'a': 'b'}
{'input_size': 4096}
{'input_size': 10**400}
{'input_size': float('nan')}
{'mean': 'x'}
{'mean': [float('inf')] * 3}
{'std': [0, 0, 0]}
{'interpolation': '\x1b[2J'}
{'layers': 3}
{'layers': {'IT': 'none'}}
{'layers': {'IT': 'z' * 10**6}}
"""
SOURCE = """
import numpy as np
import torch

class Unprintable(Exception):
    def __str__(self):
        raise RuntimeError("no text")
    __repr__ = __str__

class Inner(torch.nn.Module):
    def forward(self, x):
        {body}

class Net(torch.nn.Sequential):
    ce_align = {description}
    def eval(self):
        {evaluation}
        return super().eval()

def build():
    net = Net(Inner())
    {building}
    return net
"""
SOUND = {
    "body": "return x",
    "description": "{'input_size': 16}",
    "evaluation": "pass",
    "building": "pass",
}
#: A pass that never ends, and somebody who does not wait.
ENDLESS = """import os, signal, threading, time
        threading.Timer(.3, os.kill, (os.getpid(), signal.SIGINT)).start()
        while True: {}"""


def _network(folder: Path, **parts: str) -> Sequence[str]:
    """A network of a file, one part of whose code misbehaves."""
    (folder / "toy.nc").write_bytes(toy_recording())
    (folder / "bad.py").write_text(SOURCE.format(**SOUND | parts))
    return SCORE.format("bad.py:build").split()


def _evaluated(code: str, *_: Any, **__: Any) -> Any:
    """What an expression of code of others gives, or raises."""
    space: dict[str, Any] = {}
    exec(SOURCE.format(**SOUND), space)
    raises = code.startswith("raise ")
    found = eval(code.removeprefix("raise "), space)
    if raises:
        raise found
    return found


def _while_known(
    registry: MutableMapping[str, Any], register: Callable[[], object], line: str
) -> None:
    """Run a command while something is registered as ``bad``."""
    register()
    command = COMMANDS[line.split()[0]][0]
    # Its choices are those that there were when it was imported.
    before = import_module(f"ce_align.cli.{command}")
    try:
        del sys.modules[before.__name__]
        sys.argv = ["ce-align", *line.split()]
        main()
    finally:
        del registry["bad"]
        sys.modules[before.__name__] = before
        setattr(cli, command, before)


def _source(code: str, folder: Path) -> Callable[[], None]:
    """A source of recordings."""
    register = named.register_recording_source
    line = "score --model pixels --recording bad/x --json"
    known = partial(register, "bad", partial(_evaluated, code))
    return partial(_while_known, named.SOURCES, known, line)


def _networks(code: str, folder: Path) -> Callable[[], None]:
    """A source of networks."""
    (folder / "toy.nc").write_bytes(toy_recording())
    known = partial(load.register_source, "bad", partial(_evaluated, code))
    return partial(_while_known, load.SOURCES, known, SCORE.format("bad/x"))


def _similarity(part: str, code: str, folder: Path) -> Callable[[], None]:
    """A similarity, one part of which misbehaves."""
    (folder / "toy.nc").write_bytes(toy_recording())
    parts: dict[str, Callable[..., Any]] = {
        "represent": lambda features, config: np.asarray(features).sum(axis=1),
        "compare": lambda a, b, config, folds: float(np.corrcoef(a, b)[0, 1]),
        "pool": lambda several, config: np.sum(several, axis=0),
    }
    if part:
        parts[part] = partial(_evaluated, code)
    one = Similarity(Quantity("bad", "bad", -1, 1), "bad", **parts, by_pairs=False)
    return partial(
        _while_known,
        similarities._REGISTERED,
        partial(similarities.register_similarity, one),
        "similarity --model pixels --recording toy.nc --metric bad --json",
    )


def _measure(code: str, folder: Path) -> Callable[[], None]:
    """A measure of networks."""
    read = partial(_evaluated, code)
    one = Measure("bad", "bad", ("clean",), (Quantity("bad", "bad"),), read)
    return partial(
        _while_known,
        measures._REGISTERED,
        partial(measures.register_measure, one),
        "analyze --metric bad --model pixels --layer pixels --images simulated "
        "--comparisons 10 --json",
    )


def _number(outcome: Outcome) -> str | None:
    """What counts as a score is a number, or none."""
    if outcome.status:
        return None
    try:
        values = [row["value"] for row in json.loads(outcome.out)]
    except ValueError:
        return f"no JSON: {outcome.out[:200]}"
    odd = [v for v in values if v is not None and not -1.001 <= v <= 1.001]
    return f"{odd} are no correlations" if odd else None


def _inputs() -> Iterator[tuple[str, Callable[[Path], Any]]]:
    raised = [f"raise {code}" for code in RAISING.strip().splitlines()]
    nonsense = NONSENSE.strip().splitlines()
    for code in raised:
        yield f"pass: {code}", partial(_network, body=code)
        yield f"building: {code}", partial(_network, building=code)
    for code in raised[::3]:
        yield f"evaluation: {code}", partial(_network, evaluation=code)
    for code in nonsense:
        yield f"network: {code}", partial(_network, building=f"return {code}")
    for code in (*raised, *nonsense):
        yield f"source: {code}", partial(_source, code)
        for part in ("represent", "compare"):
            yield f"{part}: {code}", partial(_similarity, part, code)
    for code in (*raised, *nonsense)[::3]:
        yield f"pool: {code}", partial(_similarity, "pool", code)
        yield f"networks: {code}", partial(_networks, code)
        yield f"measure: {code}", partial(_measure, code)
    for code in PASSES.strip().splitlines():
        yield f"pass: {code}", partial(_network, body=f"return {code}")
    for code in DESCRIPTIONS.strip().splitlines():
        yield f"description: {code}", partial(_network, description=code)


def cases(rng: np.random.Generator) -> Iterator[Case]:
    """Code of others that misbehaves, and twice an interruption."""
    yield Case("plugins/sound", _network, _number, (0,))
    yield Case("plugins/sound similarity", partial(_similarity, "", ""), _number, (0,))
    for name, make in _inputs():
        yield Case(f"plugins/{ascii(name)[1:60]}", make, _number, STATUSES)
    for loop in ("pass", "time.sleep(99)"):
        made = partial(_network, body=ENDLESS.format(loop))
        yield Case(f"plugins/pass: while True: {loop}", made, statuses=(130,))
