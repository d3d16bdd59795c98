"""What every stage's configuration has in common."""

import inspect
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar, Literal, TypeVar, cast

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    ValidationError,
    model_validator,
)
from pydantic_core import core_schema

from ce_align.checks import nearest_names
from ce_align.digests import digest_json
from ce_align.errors import ConfigError, explained, first_line
from ce_align.files import atomic_path, read_bytes
from ce_align.names import labelled, plain_path, split_name, without_path

__all__ = [
    *("COMMITTED", "NETWORKS", "PATHS", "ConfigId", "NetworkConfig", "OneOf"),
    *("Spelled", "StageConfig", "check_settings", "option_of", "parse_yaml"),
    *("read_settings", "takes_settings", "write_settings"),
]

Function = TypeVar("Function", bound=Callable[..., Any])

#: Stands for the layer that a network commits to a region.
COMMITTED = "committed"

#: Fields that name networks, whose digests say which they are.
NETWORKS = ("model", "model_a", "model_b", "baseline")
#: Fields that may be paths, whose spelling is no part of an identity.
PATHS = (
    *(*NETWORKS, "recording", "recordings", "images", "dataset", "file"),
    *("models", "beside", "neuroids", "others", "runs"),
)
#: Kinds of names, where fields are not called as these are.
KINDS = dict.fromkeys((*NETWORKS, "models", "beside"), "network")
KINDS |= {"recordings": "recording"}


@dataclass(frozen=True)
class OneOf:
    """Annotation of a setting that is a name of a registry, as `Literal` is of a list.

    Attributes
    ----------
    what : the name is of
    names : those that there are; asked for when a setting is checked or a choice shown
    """

    what: str
    names: Callable[[], Iterable[str]]

    def __get_pydantic_core_schema__(
        self, source: Any, handler: GetCoreSchemaHandler
    ) -> core_schema.CoreSchema:
        return core_schema.no_info_after_validator_function(
            self._known, handler(source)
        )

    def _known(self, name: str) -> str:
        names = list(self.names())
        if name not in names:
            raise ConfigError(
                f"there is no {self.what} {name!r}; choose from {', '.join(names)}"
            )
        return name


class ConfigId(str):
    """Identity of a result.

    Attributes
    ----------
    spelled : with paths as they were spelled, the identity until release 0.1
    nameless : the same whatever the networks are called
    content : digests of what the settings name, and the algorithm
    """

    spelled: "ConfigId"
    nameless: str
    content: dict[str, str]


class Spelled(str):
    """The option of a field, where it is not called as the field is.

    Fields that share one are set by naming it once for each.
    """


class StageConfig(BaseModel):
    """Frozen, validated settings of one stage; saved beside its results.

    `stage` names the stage that a type of configuration is of; `narrowing` the fields
    that narrow a recording, which is identified by the digest of what is left; `later`
    the fields that came after results were stored, with the value that stands for what
    was done before: it is no part of an identity.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

    stage: ClassVar[str]
    narrowing: ClassVar[tuple[str, ...]] = ()
    later: ClassVar[Mapping[str, Any]] = MappingProxyType({})

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: Any) -> None:
        """Let help() show what the options of the command line do."""
        super().__pydantic_init_subclass__(**kwargs)
        described = [
            f"    {name} : {field.description}"
            for name, field in cls.model_fields.items()
            if field.description
        ]
        if described and cls.__doc__:
            parts = [cls.__doc__.rstrip(), "", "    Settings", "    --------"]
            cls.__doc__ = "\n".join([*parts, *described, "    "])

    @property
    def labels(self) -> dict[str, str]:
        """Labels that were given to networks, by their names; no part of the identity.

        That of the field ``model_b`` is in ``label_b``.
        """
        pairs = {name: name.replace("model", "label") for name in NETWORKS}
        return {
            getattr(self, name): label
            for name, own in pairs.items()
            if own != name and (label := getattr(self, own, None))
        }

    @model_validator(mode="before")
    @classmethod
    def _spelled(cls, given: Any) -> Any:
        if not isinstance(given, Mapping):
            return given
        found = _labels_taken(cls, given)
        for name in PATHS:
            value = found.get(name)
            if isinstance(value, str):
                found[name] = plain_path(value)
            elif isinstance(value, list | tuple) and all(
                isinstance(part, str) for part in value
            ):
                found[name] = tuple(map(plain_path, value))
        return found

    def fingerprint(self, **content: str) -> ConfigId:
        """Identity of a result: the settings and the digests of what they name.

        Of a path only the content counts, so that it is the same however the path is
        spelled, from whatever folder.

        Parameters
        ----------
        **content
            Digests of the weights, images, responses and algorithm that the settings
            only name.
        """
        narrowing = {*self.narrowing}
        settings: dict[str, Any] = self.model_dump(mode="json", exclude=narrowing)
        for name, before in self.later.items():
            if settings[name] == before:
                del settings[name]
        whole = {
            "stage": type(self).__name__,
            "settings": settings,
            "content": content,
        }
        # Whether there is a baseline is more than its name.
        unnamed = {name: "" for name in NETWORKS if settings.get(name)}
        nameless = digest_json({**whole, "settings": {**settings, **unnamed}})
        by_content = {n: _by_content(settings[n], n) for n in PATHS if n in settings}
        found = ConfigId(digest_json({**whole, "settings": {**settings, **by_content}}))
        found.spelled = ConfigId(digest_json(whole))
        for one in (found, found.spelled):
            one.content, one.nameless, one.spelled = content, nameless, found.spelled
        return found


def _labels_taken(kind: type[StageConfig], given: Mapping[Any, Any]) -> dict[Any, Any]:
    """Settings whose networks have no labels in their names: ``LABEL = NAME``."""
    found = dict(given)
    for name in NETWORKS:
        own = name.replace("model", "label")
        if own == name or own not in kind.model_fields:
            continue
        value = found.get(name)
        label, bare = labelled(value) if isinstance(value, str) else (None, "")
        if label is None:
            continue
        if found.get(own) not in (None, label):
            raise ConfigError(
                f"{bare} has the labels {label!r} and {found[own]!r}; give it one"
            )
        found |= {name: bare, own: label}
    return found


def _by_content(value: Any, field: str) -> Any:
    """A setting without the paths in it."""
    if isinstance(value, str):
        return without_path(value, KINDS.get(field, field))
    return [_by_content(v, field) for v in value] if isinstance(value, list) else value


class NetworkConfig(StageConfig):
    """Settings of a stage that reads one network.

    `submodule` and `preprocessing` are other ways to spell its name: they become a part
    of `model`, and are None afterwards. `label` is of the network's rows, whatever else
    they are of.
    """

    model: str = Field(
        description="Network: name, glob or group, torchvision/NAME[:WEIGHTS], "
        "timm/NAME, a checkpoint, or FILE.py:callable.",
    )
    label: str | None = Field(
        default=None,
        exclude=True,
        min_length=1,
        description="Short name of the network in tables and figures, one for each "
        "--model in their order; or --model 'LABEL = NAME'. [default: the paper's "
        "name, the folder of a training, the end of other names]",
    )
    submodule: str | None = Field(
        default=None,
        exclude=True,
        description="Part of a network, or of a checkpoint with several, such as "
        "'visual' of CLIP.",
    )
    preprocessing: Literal["timm"] | None = Field(
        default=None,
        exclude=True,
        description="timm: crop and interpolate as its pretrained_cfg states. Else the "
        "whole image is resized.",
    )

    @model_validator(mode="before")
    @classmethod
    def _named(cls, given: Any) -> Any:
        if not isinstance(given, Mapping) or not isinstance(given.get("model"), str):
            return given
        found = _labels_taken(cls, given)
        name = split_name(plain_path(found["model"]))
        part, fed = found.get("submodule"), found.get("preprocessing")
        if isinstance(part, str):
            inner = f"{name.part}.{part}" if name.part else part
            name, found["submodule"] = name._replace(part=inner), None
        if fed == "timm":
            name, found["preprocessing"] = name._replace(timm=True), None
        found["model"] = str(name)
        return found


def option_of(kind: type[StageConfig], name: str) -> str:
    """How a command spells a field: ``--pls-mode``."""
    for mark in kind.model_fields[name].metadata:
        if isinstance(mark, Spelled):
            return str(mark)
    return f"--{name.replace('_', '-')}"


def takes_settings(kind: type[StageConfig]) -> Callable[[Function], Function]:
    """Show the settings of a configuration in a function's signature and help.

    What is wrong with one is said in one line.
    """

    def with_settings(function: Function) -> Function:
        signature = inspect.signature(function)
        every = signature.parameters.values()
        own = [p for p in every if p.kind is not p.VAR_KEYWORD]
        settings = [
            inspect.Parameter(
                name,
                inspect.Parameter.KEYWORD_ONLY,
                default=field.get_default(call_default_factory=True),
                annotation=field.annotation,
            )
            for name, field in kind.model_fields.items()
            if len(own) < len(every)
            and not field.is_required()
            and name not in signature.parameters
        ]

        @wraps(function)
        def checked(*args: Any, **settings: Any) -> Any:
            try:
                return function(*args, **settings)
            except ValidationError as error:
                fault = error.errors()[0]
                if fault["type"] != "extra_forbidden":
                    raise explained(error) from None
                name = str(fault["loc"][-1])
                near = ", ".join(nearest_names(name, kind.model_fields)) or "none"
                raise ConfigError(
                    f"there is no setting {name!r}; nearest: {near}"
                ) from None

        shown: Any = checked
        shown.__signature__ = signature.replace(parameters=[*own, *settings])
        return cast(Function, shown)

    return with_settings


def check_settings(names: Iterable[str], kind: type[StageConfig]) -> None:
    """Raise ConfigError, which lists the nearest ones, if there is no such setting."""
    for name in names:
        if name not in kind.model_fields:
            near = nearest_names(name, kind.model_fields)
            listed = f"nearest: {', '.join(near)}" if near else "none is near"
            raise ConfigError(f"there is no setting {name!r}; {listed}")


def read_settings(path: Path, kind: type[StageConfig]) -> dict[str, Any]:
    """Settings of a YAML file, by name; their values are not checked yet.

    Raises
    ------
    ConfigError
        If the file cannot be read, is no mapping in YAML, names a setting twice, or one
        that `kind` does not have.
    """
    try:
        found = parse_yaml(read_bytes(path).decode("utf-8"))
        if not isinstance(found, dict):
            raise ConfigError(
                f"expected a mapping such as 'seed: 1', found a {type(found).__name__}"
            )
        check_settings(map(str, found), kind)
    except (OSError, UnicodeError) as error:
        raise ConfigError(f"{path} cannot be read: {first_line(error)}") from error
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error
    return found


def write_settings(path: Path, config: StageConfig) -> None:
    """Write settings as the YAML that `read_settings` reads."""
    import yaml

    settings = config.model_dump(mode="json")
    known = {
        name: settings[name] for name in type(config).model_fields if name in settings
    }
    with atomic_path(path) as temporary:
        temporary.write_text(
            yaml.safe_dump(known, sort_keys=False, allow_unicode=True), encoding="utf-8"
        )


def parse_yaml(text: str) -> Any:
    """What YAML says, without its traps: 1e-3 is a number, a key stands once.

    Raises
    ------
    ConfigError
        If it is not YAML, or names a key twice; with the line.
    """
    import yaml

    def construct(loader: Any, node: Any, deep: bool = False) -> Any:
        keys = [loader.construct_object(key, deep=True) for key, _ in node.value]
        for i, (key, _) in enumerate(node.value):
            if keys[i] in keys[:i]:
                raise yaml.MarkedYAMLError(
                    problem=f"{keys[i]!r} stands twice", problem_mark=key.start_mark
                )
        return yaml.SafeLoader.construct_mapping(loader, node, deep)

    loader: Any = type("Loader", (yaml.SafeLoader,), {"construct_mapping": construct})
    loader.add_implicit_resolver(
        "tag:yaml.org,2002:float",
        re.compile(r"[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+$"),
        list("-+0123456789"),
    )
    try:
        return yaml.load(text, loader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f" in line {mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or first_line(error)
        raise ConfigError(f"expected YAML, found{line}: {problem}") from error
