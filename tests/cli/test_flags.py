"""Options of commands say what the settings behind them say."""

import inspect
import types
from enum import EnumMeta
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import pytest
from annotated_types import Ge, Gt

from ce_align.cli import analyze, correlate, score, train, transfer
from ce_align.config import COMMITTED
from ce_align.stages.correlate import CorrelateConfig
from ce_align.stages.measures import AnalysisConfig
from ce_align.stages.overlap import OverlapConfig
from ce_align.stages.score import ScoreConfig
from ce_align.stages.transfer import TransferConfig
from ce_align.trainer.presets import TrainConfig

COMMANDS = (
    (score.score, ScoreConfig),
    (analyze.analyze, AnalysisConfig),
    (correlate.overlap, OverlapConfig),
    (transfer.transfer, TransferConfig),
    (correlate.correlate, CorrelateConfig),
    (train.train, TrainConfig),
)
#: Options that stand for several settings at once.
TOGETHER = {"model", "recording", "dataset", "metric"}


def options():
    """Kind, least number, default and setting of every option that has a setting."""
    for command, config in COMMANDS:
        hints = get_type_hints(command, include_extras=True)
        for name, parameter in inspect.signature(command).parameters.items():
            if name not in config.model_fields or name in TOGETHER:
                continue
            hint = hints[name]
            info = None
            if get_origin(hint) is Annotated:
                hint, info = get_args(hint)[:2]
            yield pytest.param(
                plain(hint),
                getattr(info, "min", None),
                parameter.default,
                config.model_fields[name],
                id=f"{command.__name__} --{name}",
            )


def plain(hint: Any) -> Any:
    """The type of what may also be None."""
    if get_origin(hint) in (Union, types.UnionType):
        (inner,) = [kind for kind in get_args(hint) if kind is not type(None)]
        return inner
    return hint


def least(field: Any) -> int | None:
    """Least integer that a setting takes."""
    marks = [*field.metadata]
    for part in (field.annotation, *get_args(field.annotation)):
        marks += getattr(part, "__metadata__", ())
    found = [mark.ge for mark in marks if isinstance(mark, Ge)]
    found += [mark.gt + 1 for mark in marks if isinstance(mark, Gt)]
    return found[0] if found else None


@pytest.mark.parametrize(("kind", "limit", "default", "field"), list(options()))
def test_an_option_says_what_its_setting_says(kind, limit, default, field):
    # What None stands for is said in words.
    if default is not None and default is not inspect.Parameter.empty:
        default = getattr(default, "value", default)
        assert field.is_required() or default == field.default
    allowed = plain(field.annotation)
    if get_origin(allowed) is Literal:
        assert isinstance(kind, EnumMeta)
        assert {choice.value for choice in kind} == set(map(str, get_args(allowed)))
    if plain(kind) is int and least(field) is not None:
        assert limit is not None
        assert limit >= least(field)


def test_what_is_left_out_stands_for_a_default():
    assert ScoreConfig.model_fields["layer"].default == COMMITTED
    assert len(list(options())) > 30
