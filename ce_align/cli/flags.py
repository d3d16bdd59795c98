"""Options of commands, made from the fields of configurations.

A command takes ``asked: Asked[SomeConfig]`` and, where it computes, ``session:
Session``. `flags` replaces the first by one option a field (its name, type, limits,
default and description are the option's) and the second by the options that all
commands share. A new field needs nothing here; a parameter of the command's own that
has a field's name takes its place.
"""

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, is_dataclass
from enum import Enum
from functools import partial
from itertools import product
from pathlib import Path
from types import GenericAlias, NoneType, UnionType
from typing import (
    TYPE_CHECKING,
    Annotated,
    Any,
    Generic,
    Literal,
    TypeVar,
    Union,
    get_args,
    get_origin,
)

import typer
from pydantic.fields import FieldInfo

from ce_align.cli.screen import (
    message,
    only_json,
    print_json,
    print_tables,
    progress_bars,
)
from ce_align.config import OneOf, StageConfig, read_settings
from ce_align.errors import ConfigError

if TYPE_CHECKING:
    from rich.table import Table

    from ce_align.stages.running import Outcome

__all__ = ["Asked", "Figure", "Json", "Results", "Session", "flags"]

Config = TypeVar("Config", bound=StageConfig)
Command = Callable[..., None]

#: Fields of which a command takes several values, one configuration for each.
SWEPT = ("metric", "model", "recording", "dataset", "layer", "figure", "table")
#: Fields whose option is spelled otherwise, or has a letter.
SPELLED = {
    "model": ("--model", "-m"),
    "recording": ("--recording", "-r"),
    "layer": ("--layer", "-l"),
    "equivariance_weight": ("--weight",),
}
RUN_PANEL = "Options of every run"

Results = Annotated[
    Path,
    typer.Option(
        "--results", help="Folder that keeps the rows.", rich_help_panel=RUN_PANEL
    ),
]
Json = Annotated[
    bool,
    typer.Option(
        "--json",
        callback=only_json,
        help="Print rows as JSON, and nothing else.",
        rich_help_panel=RUN_PANEL,
    ),
]
Figure = Annotated[
    Path | None, typer.Option("--figure", help="Draw it here, as PDF and PNG.")
]


@dataclass(frozen=True)
class Session:
    """How configurations are run, and where their rows go."""

    device: Annotated[
        str,
        typer.Option(help="auto, cpu, cuda or mps.", rich_help_panel=RUN_PANEL),
    ] = "auto"
    batch_size: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Images at a time. \\[default: by memory]",
            rich_help_panel=RUN_PANEL,
        ),
    ] = None
    workers: Annotated[
        int,
        typer.Option(
            min=1, help="Threads that render views.", rich_help_panel=RUN_PANEL
        ),
    ] = 1
    compiled: Annotated[
        bool,
        typer.Option(
            "--compile",
            help="Compile networks with torch.compile.",
            rich_help_panel=RUN_PANEL,
        ),
    ] = False
    force: Annotated[
        bool,
        typer.Option("--force", help="Compute again.", rich_help_panel=RUN_PANEL),
    ] = False
    allow_unstable: Annotated[
        bool,
        typer.Option(
            "--allow-unstable",
            help="Measure layers, too, that are random or depend on the batch; their "
            "rows say so.",
            rich_help_panel=RUN_PANEL,
        ),
    ] = False
    results: Results = Path("results")
    json: Json = False

    def run(self, configs: Iterable[StageConfig], **settings: Any) -> "Outcome":
        """Run configurations; `settings` are other ones of `ce_align.runner.run`."""
        from ce_align.runner import run
        from ce_align.stages.running import Hardware

        hardware = Hardware(
            self.device, self.batch_size, self.workers, compiled=self.compiled
        )
        with progress_bars() as progress:
            return run(
                configs,
                self.results,
                hardware=hardware,
                force=self.force,
                allow_unstable=self.allow_unstable,
                progress=progress,
                notify=message,
                **settings,
            )

    def show(self, outcome: "Outcome", tables: "Iterable[Table]") -> None:
        """Print rows, as tables or as JSON."""
        if self.json:
            print_json(outcome.rows)
        elif outcome.rows:
            print_tables(tables)


@dataclass(frozen=True)
class Asked(Generic[Config]):
    """Settings that were given, over those of a file, over a command's defaults.

    Attributes
    ----------
    kind : of configuration
    given : by options and files; of swept fields, a list
    defaults : of the command, where the configuration has none or another
    """

    kind: type[Config]
    given: dict[str, Any]
    defaults: Mapping[str, Any]

    def values(self, name: str) -> list[str]:
        """Values of a swept field."""
        value = {**self._defaults, **self.given}[name]
        return [value] if isinstance(value, str) else list(value)

    def configs(self, **replaced: Any) -> list[Config]:
        """One configuration for every combination of the values of swept fields.

        Parameters
        ----------
        **replaced : settings that take the place of those that were given

        Raises
        ------
        ConfigError
            If a name or a setting is missing or unknown.
        pydantic.ValidationError
            If a setting is out of its range.
        """
        settings = {**self._defaults, **self.given, **replaced}
        for name, field in self.kind.model_fields.items():
            if field.is_required() and settings.get(name) is None:
                raise ConfigError(f"{_spelled(name)[0]} is missing; --help explains it")
        swept = {
            name: _expanded(name, Asked(self.kind, settings, {}).values(name))
            for name in self.kind.model_fields
            if name in SWEPT and name in settings
        }
        return [
            self.kind(**{**settings, **dict(zip(swept, values, strict=True))})
            for values in product(*swept.values())
        ]

    @property
    def _defaults(self) -> dict[str, Any]:
        own = {
            name: field.default
            for name, field in self.kind.model_fields.items()
            if name in SWEPT and not field.is_required()
        }
        return {**own, **{k: v for k, v in self.defaults.items() if v is not None}}


def _expanded(name: str, values: list[str]) -> Iterable[str]:
    """Names that names, globs and groups stand for."""
    from ce_align.data.recordings import expand_recordings
    from ce_align.models.catalogue import expand
    from ce_align.runner import register_brainscore

    expansions: dict[str, Callable[[tuple[str, ...]], Iterable[str]]]
    expansions = {"model": expand, "recording": expand_recordings}
    register_brainscore()
    return expansions.get(name, list)(tuple(values))


def flags(**defaults: Any) -> Callable[[Command], Command]:
    """Give a command an option for every field of its configuration, and of a session.

    Parameters
    ----------
    **defaults : of fields that have another in the command, or none in the
        configuration; None for one that the command itself finds
    """

    def with_flags(function: Command) -> Command:
        own = inspect.signature(function, eval_str=True).parameters
        parts: dict[str, tuple[Callable[..., Any], list[inspect.Parameter]]] = {}
        for parameter in own.values():
            kind = parameter.annotation
            if get_origin(kind) is Asked:
                (config,) = get_args(kind)
                make = partial(_asked, config, defaults)
                parts[parameter.name] = make, list(_options(config, own, defaults))
            elif isinstance(kind, type) and is_dataclass(kind):
                shared = inspect.signature(kind, eval_str=True).parameters.values()
                parts[parameter.name] = kind, list(shared)
            else:
                parts[parameter.name] = (
                    lambda **only: next(iter(only.values())),
                    [parameter],
                )

        def command(**values: Any) -> None:
            function(
                **{
                    name: make(**{part.name: values[part.name] for part in options})
                    for name, (make, options) in parts.items()
                }
            )

        command.__name__, command.__doc__ = function.__name__, function.__doc__
        options = [option for _, found in parts.values() for option in found]
        shown: Any = command
        shown.__signature__ = inspect.Signature(
            [option.replace(kind=option.KEYWORD_ONLY) for option in options]
        )
        return command

    return with_flags


def _asked(
    kind: type[Config], defaults: Mapping[str, Any], /, **values: Any
) -> Asked[Config]:
    """What the options say, over what a file says."""
    file = values.pop("config")
    given = {} if file is None else read_settings(file, kind)
    for name, value in values.items():
        if isinstance(value, list):
            value = [_value(one) for one in value]
        if value is not None and value != []:
            given[name] = _value(value)
    return Asked(kind, given, defaults)


def _value(value: Any) -> Any:
    return value.value if isinstance(value, Enum) else value


def _options(
    config: type[StageConfig], own: Iterable[str], defaults: Mapping[str, Any]
) -> Iterator[inspect.Parameter]:
    """An option for every field that can be one, and for a file of them."""
    for name, field in config.model_fields.items():
        option = None if name in own else _option(name, field, defaults)
        if option is not None:
            yield option
    yield inspect.Parameter(
        "config",
        inspect.Parameter.KEYWORD_ONLY,
        default=None,
        annotation=Annotated[
            Path | None,
            typer.Option(help="YAML of settings, as above; options go before it."),
        ],
    )


def _option(
    name: str, field: FieldInfo, defaults: Mapping[str, Any]
) -> inspect.Parameter | None:
    """The option of a field; None for a field that one word cannot set."""
    kind, limits = _plain(field.annotation, field.metadata)
    several = name in SWEPT
    for mark in limits:
        if isinstance(mark, OneOf):
            choices_of: Any = Literal
            kind = choices_of[tuple(mark.names())]
    if get_origin(kind) is tuple:
        first, *rest = get_args(kind)
        if rest != [...]:
            return None
        kind, several = first, True
    default = defaults.get(name, None if field.is_required() else field.default)
    if get_origin(kind) is Literal:
        choices = dict.fromkeys(get_args(kind))
        if isinstance(default, str):  # such as 'all', for the command to explain
            choices |= {default: None}
        enumeration: Callable[..., Any] = Enum
        kind = enumeration("Choice", [(str(choice), choice) for choice in choices])
    elif kind not in (str, int, float, bool, Path):
        return None
    numeric = kind in (int, float) and not several
    option = typer.Option(
        *_spelled(name, switch=default is True),
        help=" ".join(
            part
            for part in (
                (field.description or "").replace("[", "\\["),
                "Repeatable." if several else "",
                _shown(name, field, defaults, default),
            )
            if part
        ),
        min=_limit(limits, "ge", "gt", 1, kind) if numeric else None,
        max=_limit(limits, "le", "lt", -1, kind) if numeric else None,
        autocompletion=COMPLETIONS.get(name),
    )
    whole: Any = GenericAlias(list, (kind,)) if several else kind
    return inspect.Parameter(
        name,
        inspect.Parameter.KEYWORD_ONLY,
        default=None,
        annotation=Annotated[whole | None, option],
    )


def _plain(annotation: Any, metadata: Iterable[Any] = ()) -> tuple[Any, list[Any]]:
    """A type without None, and the marks on it and on what it is made of."""
    if get_origin(annotation) is Annotated:
        inner, *marks = get_args(annotation)
        for mark in marks:
            metadata = [*metadata, *getattr(mark, "metadata", [mark])]
        return _plain(inner, metadata)
    if get_origin(annotation) in (Union, UnionType):
        kinds = [kind for kind in get_args(annotation) if kind is not NoneType]
        return _plain(kinds[0], metadata) if len(kinds) == 1 else (None, [])
    return annotation, list(metadata)


def _limit(
    marks: Iterable[Any], closed: str, opened: str, step: int, kind: type
) -> float | None:
    """A limit that is allowed itself; an open one of real numbers is pydantic's."""
    for mark in marks:
        limit: Any = getattr(mark, closed, None)
        if limit is None and kind is int and hasattr(mark, opened):
            limit = getattr(mark, opened) + step
        if limit is not None:
            return limit if kind is int else float(limit)
    return None


def _spelled(name: str, *, switch: bool = False) -> tuple[str, ...]:
    dashed = name.replace("_", "-")
    plain = f"--{dashed}/--no-{dashed}" if switch else f"--{dashed}"
    return SPELLED.get(name, (plain,))


def _shown(
    name: str, field: FieldInfo, defaults: Mapping[str, Any], default: Any
) -> str:
    """What stands at the end of the help of an option."""
    if field.is_required() and name not in defaults:
        return "[red]\\[required][/red]"
    if default is None or default is False or default == ():
        return ""
    return f"\\[default: {'on' if default is True else default}]"


def _complete_model(incomplete: str) -> list[str]:
    from ce_align.models.catalogue import BASELINES, GROUPS, PUBLISHED

    known = (*GROUPS, *PUBLISHED, *BASELINES)
    return [name for name in known if name.startswith(incomplete)]


def _complete_recording(incomplete: str) -> list[str]:
    from ce_align.brainscore import register
    from ce_align.data.recordings import RECORDINGS

    register()
    return [name for name in RECORDINGS if name.startswith(incomplete)]


def _complete_dataset(incomplete: str) -> list[str]:
    from ce_align.data.labelled import DATASETS

    return [name for name in DATASETS if name.startswith(incomplete)]


#: How a shell completes the values of a field.
COMPLETIONS: Mapping[str, Callable[[str], list[str]]] = {
    "model": _complete_model,
    "recording": _complete_recording,
    "dataset": _complete_dataset,
}
