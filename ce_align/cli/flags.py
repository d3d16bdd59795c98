"""Options of commands, made from the fields of configurations.

A command takes ``asked: Asked[SomeConfig]`` and, where it computes, ``session:
Session``. `flags` replaces the first by one option a field (its name, type, limits,
default and description are the option's) and the second by the options that all
commands share. A new field needs nothing here; a parameter of the command's own that
has a field's name takes its place.
"""

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
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
from pydantic import ValidationError

from ce_align.checks import named_some
from ce_align.cli.completion import COMPLETIONS
from ce_align.cli.screen import message, only_json, progress_bars
from ce_align.config import (
    OneOf,
    StageConfig,
    check_settings,
    option_of,
    parse_yaml,
    read_settings,
)
from ce_align.errors import ConfigError, explained
from ce_align.names import labelled

if TYPE_CHECKING:
    from ce_align.stages.running import Hardware, Outcome

__all__ = [
    *("Asked", "Figure", "Found", "Json", "Results", "Root", "Session"),
    *("expanded", "flags"),
]

Config = TypeVar("Config", bound=StageConfig)
Command = Callable[..., None]

#: Options of which a command takes several values, one configuration for each.
SWEPT = ("metric", "model", "recording", "dataset", "layer", "figure", "table")
#: Those, and one that each network of a command has its own of.
REPEATED = (*SWEPT, "label")
#: Letters of options.
LETTERS = {"--model": "-m", "--recording": "-r", "--layer": "-l"}
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
Root = Annotated[
    Path | None,
    typer.Option(
        help="Folder where published data sets lie, or are downloaded to. "
        "\\[default: datasets in the cache]"
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
        typer.Option(
            help="auto, cpu, cuda or mps; several (cuda:0,cuda:1), or gpus for all, "
            "share the images of a network.",
            rich_help_panel=RUN_PANEL,
            autocompletion=COMPLETIONS["device"],
        ),
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

    @property
    def hardware(self) -> "Hardware":
        """Where networks run."""
        from ce_align.stages.running import Hardware

        return Hardware(
            self.device, self.batch_size, self.workers, compiled=self.compiled
        )

    def run(self, configs: Iterable[StageConfig], **settings: Any) -> "Outcome":
        """Run configurations; `settings` are other ones of `ce_align.runner.run`."""
        from ce_align.runner import run

        with progress_bars() as progress:
            return run(
                configs,
                self.results,
                hardware=self.hardware,
                force=self.force,
                allow_unstable=self.allow_unstable,
                progress=progress,
                notify=message,
                **settings,
            )


class Found(str):
    """A default that a command finds itself, as its help says it."""


@dataclass(frozen=True)
class Asked(Generic[Config]):
    """Settings that were given: by options, over those of a file.

    Attributes
    ----------
    kind : of configuration
    given : settings by name; of swept fields, one value or several
    defaults : of the command, where the configuration has none or another
    file : that was read, and the settings that it decides
    """

    kind: type[Config]
    given: dict[str, Any]
    defaults: Mapping[str, Any]
    file: tuple[Path | None, frozenset[str]] = (None, frozenset())

    @contextmanager
    def naming_file(self, setting: str | None = None) -> Iterator[None]:
        """Let a mistake in the file name it: in a setting, or whichever is found."""
        path, decided = self.file
        try:
            yield
        except ConfigError as error:
            if setting not in decided:
                raise
            raise ConfigError(f"{path}: {error}") from error
        except ValidationError as error:
            wrong = {
                fault["loc"][0] if fault["loc"] else "" for fault in error.errors()
            }
            if error.title != self.kind.__name__ or not decided & wrong:
                raise
            raise ConfigError(f"{path}: {explained(error)}") from error

    def values(self, name: str) -> list[str]:
        """Values of a swept field, its default if there is none; maybe none at all."""
        field = self.kind.model_fields[name]
        default = [] if field.is_required() else field.default
        value = self.given.get(name, self.defaults.get(name, default))
        return [value] if isinstance(value, str) else list(value)

    def check_complete(self) -> None:
        """Raise ConfigError, which names its option, if a setting is missing."""
        for name, field in self.kind.model_fields.items():
            if field.is_required() and self.given.get(name) is None:
                option = option_of(self.kind, name)
                raise ConfigError(f"{option} is missing; --help explains it")

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
        whole = Asked(self.kind, {**self.defaults, **self.given, **replaced}, {})
        whole.check_complete()
        swept = {}
        for name in (name for name in SWEPT if name in self.kind.model_fields):
            with self.naming_file(name):
                swept[name] = expanded(name, whole.values(name))
        labels = whole.given.pop("label", None)
        if labels is not None:
            labels = [labels] if isinstance(labels, str) else labels
            models = swept["model"]
            if len(labels) != len(models):
                raise ConfigError(
                    f"--label is one for each network: found {len(labels)} for "
                    f"{len(models)}, {named_some(models)}"
                )
        found = []
        for values in product(*swept.values()):
            own = dict(zip(swept, values, strict=True))
            if labels is not None:
                own["label"] = labels[models.index(own["model"])]
            found.append(self.kind(**{**whole.given, **own}))
        return found


def expanded(name: str, values: Sequence[str]) -> list[str]:
    """What names, globs and groups stand for; a setting of any other kind is itself."""
    from ce_align.data.named import expand_recordings
    from ce_align.models.catalogue import expand
    from ce_align.runner import register_brainscore

    if name not in ("model", "recording"):
        return list(values)
    register_brainscore()
    if name == "recording":
        return expand_recordings(tuple(values))
    found: dict[str, None] = {}
    for label, named in map(labelled, values):
        names = expand([named])
        if label is not None and len(names) > 1:
            raise ConfigError(
                f"{label!r} is the label of one network; {named} are {len(names)}"
            )
        found |= dict.fromkeys(f"{label} = {n}" if label else n for n in names)
    return list(found)


def flags(**defaults: Any) -> Callable[[Command], Command]:
    """Give a command an option for every field of its configuration, and of a session.

    Parameters
    ----------
    **defaults : of fields that have another in the command, or none in the
        configuration; what the command finds itself is `Found`
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
                parts[parameter.name] = _same, [parameter]

        def command(**values: Any) -> None:
            arguments = {
                name: make(**{part.name: values[part.name] for part in options})
                for name, (make, options) in parts.items()
            }
            with ExitStack() as stack:
                for part in arguments.values():
                    if isinstance(part, Asked):
                        stack.enter_context(part.naming_file())
                function(**arguments)

        command.__name__, command.__doc__ = function.__name__, function.__doc__
        options = [option for _, found in parts.values() for option in found]
        shown: Any = command
        shown.__signature__ = inspect.Signature(
            [option.replace(kind=option.KEYWORD_ONLY) for option in options]
        )
        return command

    return with_flags


def _same(**only: Any) -> Any:
    (value,) = only.values()
    return value


def _asked(
    kind: type[Config], defaults: Mapping[str, Any], /, **values: Any
) -> Asked[Config]:
    """What the options say, over what a file says."""
    file, further = values.pop("config"), values.pop("set", None)
    given = {} if file is None else read_settings(file, kind)
    read = dict(given)
    for name, value in values.items():
        if value is None or value == []:
            continue
        value = [_plain(v) for v in value] if isinstance(value, list) else _plain(value)
        fields = _fields(kind)[name]
        if len(fields) == 1:
            given[fields[0]] = value
            continue
        one_each = expanded(name, value)
        if len(one_each) != len(fields):
            raise ConfigError(
                f"{kind.stage} takes {len(fields)} of --{name}, found {len(one_each)}"
                + (f": {named_some(one_each)}" if one_each else "")
            )
        given |= dict(zip(fields, one_each, strict=True))
    for text in further or ():
        _set(given, text, kind)
    decided = frozenset(name for name in read if given[name] is read[name])
    return Asked(
        kind,
        given,
        {k: v for k, v in defaults.items() if not isinstance(v, Found)},
        (file, decided and decided | {""}),
    )


def _plain(value: Any) -> Any:
    return value.value if isinstance(value, Enum) else value


def _set(given: dict[str, Any], text: str, kind: type[StageConfig]) -> None:
    """Take one KEY=VALUE into the settings; the key may be one of a nested setting."""
    key, equals, value = text.partition("=")
    if not key or not equals:
        raise ConfigError(f"--set should be KEY=VALUE, found {text!r}")
    name, *inner = key.split(".")
    try:
        check_settings([name], kind)
        found = parse_yaml(value)
    except ConfigError as error:
        raise ConfigError(f"--set {text}: {error}") from error
    for part in reversed(inner):
        found = {part: found}
    if inner and isinstance(given.get(name), dict):
        found = _merged(given[name], found)
    given[name] = found


def _merged(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(old)
    for name, value in new.items():
        if isinstance(value, dict) and isinstance(old.get(name), dict):
            value = _merged(old[name], value)
        merged[name] = value
    return merged


def _fields(config: type[StageConfig]) -> dict[str, list[str]]:
    """Fields by the option that sets them, which is one for each but a few."""
    found: dict[str, list[str]] = {}
    for name in config.model_fields:
        option = option_of(config, name).removeprefix("--")
        found.setdefault(option.replace("-", "_"), []).append(name)
    return {
        option if len(names) > 1 else names[0]: names for option, names in found.items()
    }


def _options(
    config: type[StageConfig], own: Iterable[str], defaults: Mapping[str, Any]
) -> Iterator[inspect.Parameter]:
    """An option for every field that can be one, for a file, and for all others."""
    unset = []
    for option, fields in _fields(config).items():
        if option in own:
            continue
        made = _option(option, config, fields, defaults)
        if made is None:
            unset.append(option)
        else:
            yield made
    file = typer.Option(help="YAML of settings; what options say goes before it.")
    yield _parameter("config", Path | None, file)
    if unset:
        further = typer.Option(
            metavar="KEY=VALUE",
            help="Any setting, the value as YAML, such as "
            f"{unset[-1]}.{{NAME}}=0.1. For {' and '.join(unset)}. Repeatable.",
        )
        yield _parameter("set", list[str] | None, further)


def _parameter(name: str, kind: Any, option: Any) -> inspect.Parameter:
    return inspect.Parameter(
        name,
        inspect.Parameter.KEYWORD_ONLY,
        default=None,
        annotation=Annotated[kind, option],
    )


def _option(
    name: str,
    config: type[StageConfig],
    fields: Sequence[str],
    defaults: Mapping[str, Any],
) -> inspect.Parameter | None:
    """The option of a field; None for a field that one word cannot set."""
    field = config.model_fields[fields[0]]
    kind, limits = _unwrapped(field.annotation, field.metadata)
    several = name in REPEATED or len(fields) > 1
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
        if isinstance(default, str) and not isinstance(default, Found):
            choices |= {default: None}  # such as 'all', for the command to explain
        enumeration: Callable[..., Any] = Enum
        kind = enumeration("Choice", [(str(choice), choice) for choice in choices])
    elif kind not in (str, int, float, bool, Path):
        return None
    spelled = option_of(config, fields[0])
    if default is True:
        names = [f"{spelled}/--no-{spelled.removeprefix('--')}"]
    else:
        names = [spelled, *filter(None, [LETTERS.get(spelled)])]
    numeric = kind in (int, float) and not several
    told = (
        (field.description or "").replace("[", "\\["),
        "Repeatable." if several and len(fields) == 1 else "",
        "[red]\\[required][/red]" if field.is_required() and default is None else "",
        ""
        if default is None or default is False or default == ()
        else f"\\[default: {'on' if default is True else default}]",
    )
    option = typer.Option(
        *names,
        help=" ".join(filter(None, told)),
        min=_limit(limits, "ge", "gt", 1, kind) if numeric else None,
        max=_limit(limits, "le", "lt", -1, kind) if numeric else None,
        autocompletion=COMPLETIONS.get(fields[0], COMPLETIONS.get(name)),
    )
    whole: Any = GenericAlias(list, (kind,)) if several else kind
    return _parameter(name, whole | None, option)


def _unwrapped(annotation: Any, metadata: Iterable[Any] = ()) -> tuple[Any, list[Any]]:
    """A type without None, and the marks on it and on what it is made of."""
    if get_origin(annotation) is Annotated:
        inner, *marks = get_args(annotation)
        for mark in marks:
            metadata = [*metadata, *getattr(mark, "metadata", [mark])]
        return _unwrapped(inner, metadata)
    if get_origin(annotation) in (Union, UnionType):
        kinds = [kind for kind in get_args(annotation) if kind is not NoneType]
        return _unwrapped(kinds[0], metadata) if len(kinds) == 1 else (None, [])
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
