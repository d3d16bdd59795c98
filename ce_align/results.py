"""Rows (numbers with their provenance) and the folder that keeps them."""

import json
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Self, TypeVar, get_args

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    TypeAdapter,
    ValidationError,
    create_model,
    model_validator,
)

from ce_align import __version__
from ce_align.arrays import seal, seal_holds
from ce_align.checks import integer
from ce_align.config import StageConfig
from ce_align.digests import digest_json
from ce_align.environment import environment
from ce_align.errors import ConfigError, DataError, explained, first_line
from ce_align.files import (
    atomic_path,
    check_regular,
    import_xarray,
    read_bytes,
    read_text,
    reading_archive,
)
from ce_align.index import Texts, indexed
from ce_align.progress import Notify

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr

__all__ = [
    *("FACTS", "LABELLED", "NAMING", "PROVENANCE", "SECOND", "UNKNOWN_CONTENT"),
    *("DamageError", "Failure", "NetworkFacts", "ResultStore", "Row", "joined_notes"),
]

#: In the note of a row whose network holds what no digest can tell.
UNKNOWN_CONTENT = "its content is unknown"

#: In place of the settings of a file that cannot be read.
DAMAGED = "damaged"

#: Settings that say what was computed.
NAMING = (
    *("model", "model_a", "model_b", "objective", "equivariance_weight", "metric"),
    *("models", "beside", "layer", "recording", "recordings", "dataset", "images"),
    "file",
)


class DamageError(DataError):
    """A stored result is no longer what was written; its argument is the fault."""

    def __str__(self) -> str:
        return f"{self.args[0]}; delete it, or run that again, which replaces it"


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


@dataclass(frozen=True)
class NetworkFacts:
    """What a network is called and how it came to be; None where it is not known.

    Attributes
    ----------
    objective : training loss
    equivariance_weight : λ
    backbone : architecture
    epochs : of training; 0 for random weights
    pretraining : images or weights that the training is known by; ``none`` for random
        weights
    augmentation : family of the views of both images, such as ``strong``
    network_seed : of the training, or of random weights
    label : short name in tables and figures
    weighting : ``gradients`` where λ is a share of theirs rather than of the losses;
        ``drawn`` where one training has every λ
    """

    objective: str | None = None
    equivariance_weight: float | None = None
    backbone: str | None = None
    epochs: int | None = None
    pretraining: str | None = None
    augmentation: str | None = None
    network_seed: int | None = None
    label: str | None = None
    weighting: str | None = None

    def columns(self) -> dict[str, Any]:
        """Columns of a row of this network."""
        return asdict(self)


#: Columns of every row that tell of its network.
FACTS = tuple(field.name for field in fields(NetworkFacts))
#: And of a second one that it is about, after ``other_`` or ``baseline_``.
SECOND = ("objective", "equivariance_weight", "label")
#: Columns of labels, and those with the names of their networks.
LABELLED = {"label": "model", "other_label": "other", "baseline_label": "baseline"}
#: Columns that follow from what a row's configuration names, or from when and by which
#: release it was made, and so enter no identity.
PROVENANCE = ("created", "version", "stage", "origin", *FACTS)


#: Row type of each stage that is imported.
_ROW_TYPES: "dict[str, type[Row]]" = {}


class Row(BaseModel):
    """One number and where it comes from; every stage adds its own columns.

    They are in the row types of `ce_align.stages`, such as
    `ce_align.stages.scores.ScoreRow`.

    Attributes
    ----------
    stage : that computed it
    model : network that was measured
    metric : what was measured
    value : the number; None where it is not defined (the stage says why)
    config_id : fingerprint of the settings and of all that they name
    version : of ce_align
    created : UTC time, ISO 8601
    note : what must be known to use the number, such as why it is None
    origin : of the data: a recording is ``recorded``, ``simulated`` or ``imported``,
        images are ``files`` or ``simulated``; of several, joined by ``+``
    objective, equivariance_weight, backbone, epochs, pretraining, augmentation, \
    network_seed, label, weighting : see `NetworkFacts`
    """

    model_config = ConfigDict(
        frozen=True, extra="forbid", protected_namespaces=(), allow_inf_nan=False
    )

    stage: str
    model: str
    metric: str
    value: float | None
    config_id: str
    version: str = __version__
    created: str = Field(default_factory=_now)
    note: str | None = None
    origin: str | None = None
    objective: str | None = None
    equivariance_weight: float | None = None
    backbone: str | None = None
    epochs: int | None = None
    pretraining: str | None = None
    augmentation: str | None = None
    network_seed: int | None = None
    label: str | None = None
    weighting: str | None = None

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: Any) -> None:
        """Remember the columns of a stage, by which its files are checked."""
        if isinstance(stage := cls.model_fields["stage"].default, str):
            _ROW_TYPES[stage] = cls


RowType = TypeVar("RowType", bound=Row)

#: Whole numbers that every reader of JSON keeps.
_Integer = Annotated[int, Field(ge=-(2**63), lt=2**63)]
_Scalar = str | _Integer | float | bool | None


class _StoredRow(Row):
    """A row of any stage and version: what it has is of the right type."""

    model_config = ConfigDict(extra="allow", strict=True)
    __pydantic_extra__: dict[str, _Scalar | list[_Scalar]]

    stage: str = ""
    version: str
    created: str


@cache
def _stored_rows(row_type: type[Row]) -> TypeAdapter[Any]:
    """Rows of a stage; what a version did not write yet may be missing."""
    own: dict[str, Any] = {}
    for name, field in row_type.model_fields.items():
        if name not in ("stage", "version", "created"):
            # A table of rows may have made whole numbers floats.
            whole = int in (field.annotation, *get_args(field.annotation))
            kind: Any = field.annotation
            kind = kind | float if whole else kind
            always = name in Row.model_fields and field.is_required()
            own[name] = (kind, ...) if always else (kind | None, None)
    schema: Any = create_model("StoredRow", __base__=_StoredRow, **own)
    return TypeAdapter(list[schema])


class _StoredSettings(BaseModel):
    """Settings of a configuration, of any stage: what names things names them."""

    model_config = ConfigDict(extra="allow", strict=True, protected_namespaces=())

    model: str | None = None
    model_a: str | None = None
    model_b: str | None = None
    models: list[str] | None = None
    layer: str | None = None
    recording: str | None = None
    recordings: list[str] | None = None
    images: str | None = None
    metric: str | None = None
    dataset: str | None = None


class _Stored(BaseModel):
    """A file of the store; it may be another program's, or have been edited."""

    model_config = ConfigDict(strict=True)

    stage: str
    config_id: str = ""
    config: _StoredSettings = _StoredSettings()
    environment: dict[str, str] = {}
    content: dict[str, str] = {}
    behaviours: list[Any] = []
    identities: list[dict[str, str]] = []
    rows: list[dict[str, Any]]
    sealed: bool = False
    digest: str = ""

    @model_validator(mode="after")
    def _has_rows(self) -> Self:
        _stored_rows(_ROW_TYPES.get(self.stage, Row)).validate_json(
            json.dumps(self.rows)
        )
        return self


class Failure(BaseModel):
    """Why a configuration has no rows.

    Attributes
    ----------
    stage : that failed
    config : its settings
    error : class of the error
    message : its one line
    exit_status : of a command that ends with it
    created : UTC time, ISO 8601
    environment : versions and machine
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    stage: str
    config: dict[str, Any]
    error: str
    message: str
    exit_status: int
    created: str = Field(default_factory=_now)
    environment: dict[str, str]

    @property
    def what(self) -> str:
        """What failed, by the names in its settings."""
        return " · ".join(str(self.config[n]) for n in NAMING if self.config.get(n))


def joined_notes(*notes: str | None) -> str | None:
    """Notes as one, each once; None if there are none."""
    return "; ".join(dict.fromkeys(note for note in notes if note)) or None


@dataclass(frozen=True)
class ResultStore:
    """Results below one folder: ``<stage>/<config_id>.json``, arrays in ``.nc``.

    What failed is in ``<stage>/failed/``, until the same settings give rows.
    Files are written whole or not at all, one for each configuration, so any number of
    processes and machines may share the folder. Deleting a file is how one recomputes.
    """

    folder: Path

    def _path(self, stage: str, config_id: str) -> Path:
        return self.folder / stage / f"{config_id}.json"

    def get(
        self,
        stage: str,
        config_id: str,
        row_type: type[RowType],
        notify: Notify | None = None,
    ) -> list[RowType] | None:
        """Rows stored for a configuration, or None.

        With `notify`, which is told, damaged ones count as none.

        Raises
        ------
        DamageError
            If the file, or that of its arrays, is not what was written; not with
            `notify`.
        DataError
            If it is not a result, or has columns of another version.
        """
        path = self._path(stage, config_id)
        if not path.exists():
            return None
        try:
            document = _read(path)
            if document.get("sealed") and not seal_holds(_arrays(path)):
                raise DamageError(f"{_arrays(path)} is damaged or missing")
        except DamageError as error:
            if notify is None:
                raise
            notify(f"{error.args[0]}; it is computed again")
            return None
        try:
            return [row_type(**row) for row in document["rows"]]
        except (TypeError, ValidationError) as error:
            theirs = document["rows"][0].get("version", "unknown")
            raise DataError(
                f"{path} is of ce_align {theirs}, with other columns than this version "
                f"({__version__}) writes; use that version, or other --results"
            ) from error

    def put(
        self,
        stage: str,
        config_id: str,
        config: StageConfig,
        rows: Sequence[Row],
        arrays: "xr.Dataset | None" = None,
        behaviours: Sequence[Any] = (),
        identities: Sequence[dict[str, str]] = (),
        nameless: str | None = None,
    ) -> Path:
        """Store the rows of a configuration, and its arrays beside them.

        `behaviours` are what the networks behind the rows compute of fixed images, by
        which a changed one is noticed, and `identities` what they are made of, by which
        is said what changed; by `nameless`, an identity without names, they are found
        again under other names (see `namesake`).
        """
        path = self._path(stage, config_id)
        document = {
            "stage": stage,
            "config_id": config_id,
            "config": config.model_dump(mode="json"),
            "environment": environment(),
            "content": getattr(config_id, "content", {}),
            "behaviours": list(behaviours),
            "identities": list(identities),
            "rows": [{**row.model_dump(mode="json"), "stage": stage} for row in rows],
        }
        # Arrays first: whoever sees the rows can rely on the arrays.
        if arrays is not None:
            import_xarray()
            with atomic_path(_arrays(path)) as temporary:
                arrays.to_netcdf(temporary, engine="netcdf4")
                seal(temporary)
        document["sealed"] = seal_holds(_arrays(path)) is not None
        # As it will be read: what is a tuple or a number of numpy here is not there.
        document["digest"] = digest_json(json.loads(json.dumps(document)))
        with atomic_path(path) as temporary:
            temporary.write_text(json.dumps(document, indent=1, allow_nan=False) + "\n")
        if nameless is not None:
            with atomic_path(self._namesake(stage, nameless)) as temporary:
                temporary.write_text(config_id)
        self.clear_failure(stage, config)
        return path

    def _failed(self, stage: str, config: StageConfig) -> Path:
        # By the settings alone: what failed to load has no content to be known by.
        whole = {"config": type(config).__name__, **config.model_dump(mode="json")}
        return self.folder / stage / "failed" / f"{digest_json(whole)}.json"

    def put_failure(self, stage: str, config: StageConfig, error: Exception) -> Path:
        """Store why a configuration has no rows, until `put` stores some."""
        known = explained(error)
        failure = Failure(
            stage=stage,
            config=config.model_dump(mode="json"),
            error=type(error).__name__,
            message=first_line(known),
            exit_status=known.exit_status,
            environment=environment(),
        )
        path = self._failed(stage, config)
        with atomic_path(path) as temporary:
            temporary.write_text(failure.model_dump_json(indent=1) + "\n")
        return path

    def clear_failure(self, stage: str, config: StageConfig) -> None:
        """Forget that a configuration failed."""
        self._failed(stage, config).unlink(missing_ok=True)

    def forget_failures(self) -> int:
        """Forget that anything failed; how many failures there were."""
        paths = list(self.folder.glob("*/failed/*.json"))
        for path in paths:
            path.unlink(missing_ok=True)
        return len(paths)

    def failures(self, stage: str | None = None) -> list[Failure]:
        """Configurations that failed when they were last run, by stage and time.

        Files of the store that cannot be read are among them.
        """
        rooms = self._rooms(stage)
        texts = indexed(self.folder, [f"{r}/failed" for r in rooms], _failure_texts)
        stored = indexed(self.folder, rooms, _result_texts)
        texts += [text for text in stored if text.settings == DAMAGED]
        found = [Failure.model_validate_json(text.rest) for text in texts]
        return sorted(found, key=lambda failure: (failure.stage, failure.created))

    def namesake(self, stage: str, nameless: str) -> str | None:
        """Configuration that differs from another in the names of networks only."""
        try:
            return read_text(self._namesake(stage, nameless)).strip() or None
        except (OSError, ValueError):
            return None

    def _namesake(self, stage: str, nameless: str) -> Path:
        return self.folder / stage / "namesakes" / f"{nameless}.txt"

    def behaviours(self, stage: str, config_id: str) -> list[Any]:
        """Behaviours of the networks when a configuration's rows were stored."""
        return list(_read(self._path(stage, config_id)).get("behaviours", []))

    def identities(self, stage: str, config_id: str) -> list[dict[str, str]]:
        """What the networks of stored rows are made of: digests by name of the part.

        Nothing for rows of ce_align 0.1. See `ce_align.models.networks.Probe.summary`.
        """
        return list(_read(self._path(stage, config_id)).get("identities", []))

    def has(self, stage: str, config_id: str) -> bool:
        """Whether there are rows of a configuration."""
        return self._path(stage, config_id).exists()

    def has_arrays(self, stage: str, config_id: str) -> bool:
        """Whether a stored configuration has arrays."""
        return _arrays(self._path(stage, config_id)).exists()

    def arrays(self, stage: str, config_id: str) -> "xr.Dataset":
        """Per-neuroid or per-comparison arrays of a stored configuration."""
        path = _arrays(self._path(stage, config_id))
        if not path.exists():
            raise DataError(f"no arrays at {path}; run that configuration again")
        if seal_holds(path) is False:
            raise DamageError(f"{path} is damaged")
        with reading_archive(check_regular(path), "netCDF file"):
            dataset: xr.Dataset = import_xarray().load_dataset(path, engine="netcdf4")
        return dataset

    def _rooms(self, stage: str | None) -> list[str]:
        """Names of the folder of a stage, or of every one, whether or not it exists."""
        if stage is not None:
            return [stage]
        with suppress(FileNotFoundError, NotADirectoryError):
            return sorted(p.name for p in self.folder.iterdir() if p.name[0] != ".")
        return []

    def documents(
        self, stage: str | None = None, *, sound: bool = False
    ) -> Iterator[dict[str, Any]]:
        """Every stored result with its configuration and environment.

        Behaviours, most of a file, are left out; see `behaviours`.

        Parameters
        ----------
        stage : only of this one
        sound : only those that can be read; the others are among `failures`

        Raises
        ------
        DataError
            If a file is no result, unless `sound`.
        """
        for text in indexed(self.folder, self._rooms(stage), _result_texts):
            if text.settings != DAMAGED:
                yield json.loads(text.rest) | json.loads(text.settings)
            elif not sound:
                raise DataError(Failure.model_validate_json(text.rest).message)

    def settings(self, stage: str) -> Iterator[dict[str, Any]]:
        """Settings of every stored configuration of a stage."""
        for text in indexed(self.folder, [stage], _result_texts):
            if text.settings != DAMAGED:
                yield json.loads(text.settings)["config"]

    def starting(self, letters: str, stage: str | None = None) -> dict[str, Any]:
        """The stored result whose ``config_id`` starts with some letters.

        Raises
        ------
        ConfigError
            If there is none, or several.
        """
        paths = [
            path
            for room in self._rooms(stage)
            for path in (self.folder / room).glob("*.json")
            if path.name.startswith(letters) and not path.name.startswith(".")
        ]
        if len(paths) == 1 and letters:
            return _read(paths[0])
        raise ConfigError(
            f"{len(paths) or 'no'} results in {self.folder} have a config_id that "
            f"starts with {letters!r}; give as many letters as one has"
        )

    def load(self, stage: str | None = None) -> "pd.DataFrame":
        """All rows of a stage, or of every stage, as one tidy table."""
        import pandas as pd

        return pd.DataFrame(
            [
                {"stage": document["stage"], **row}
                for document in self.documents(stage)
                for row in document["rows"]
            ]
        )


def _arrays(path: Path) -> Path:
    """Where the arrays of a stored result are."""
    return path.with_suffix(".nc")


def _checked(path: Path, schema: type[BaseModel], what: str) -> dict[str, Any]:
    """Document of a file that a schema holds for.

    DamageError if it is no JSON, or not what was written: earlier ones have no digest.
    """
    content = read_bytes(path)
    try:
        document = json.loads(content, parse_int=integer)
        stated = document.pop("digest", None) if isinstance(document, dict) else None
        if stated is not None and stated != digest_json(document):
            raise DamageError(f"{path} is damaged: its digest is another")
        schema.model_validate(document)
    except ValidationError as error:
        raise DataError(
            f"{path} is not {what}: {explained(error)}; delete it"
        ) from error
    except DataError:
        raise
    except (ValueError, RecursionError) as error:
        raise DamageError(f"{path} is damaged: it is no JSON") from error
    return dict(document)


def _read(path: Path) -> dict[str, Any]:
    return {"config": {}} | _checked(path, _Stored, "a result file")


def _result_texts(path: Path) -> Texts:
    try:
        document = _read(path)
    except DataError as error:
        return _damaged(path, path.parent.name, error)
    document.pop("behaviours", None)
    settings = {"config": document.pop("config")}
    return Texts(json.dumps(settings), json.dumps(document))


def _failure_texts(path: Path) -> Texts:
    try:
        document = _checked(path, Failure, "the record of a failure")
    except DataError as error:
        return _damaged(path, path.parent.parent.name, error)
    return Texts("", json.dumps(document))


def _damaged(path: Path, stage: str, error: DataError) -> Texts:
    """A file that cannot be read, as the failure that it is listed as."""
    failure = Failure(
        stage=stage,
        config={"file": str(path)},
        error=type(error).__name__,
        message=str(error),
        exit_status=error.exit_status,
        environment={},
    )
    return Texts(DAMAGED, failure.model_dump_json())
