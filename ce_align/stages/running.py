"""One run of many configurations: what it shares, what it keeps, what it tells."""

from base64 import b64encode
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from ce_align.checks import named_some
from ce_align.config import ConfigId, StageConfig
from ce_align.digests import combine_digests, digest_json
from ce_align.errors import CeAlignError, ConfigError, explained
from ce_align.files import cache_folder, read_bytes
from ce_align.models.catalogue import label_of
from ce_align.names import BRAIN, FEATURES, network_behind, split_name, without_path
from ce_align.progress import Notify, Progress, quiet, silent
from ce_align.results import FACTS, LABELLED, SECOND, NetworkFacts, ResultStore, Row

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr

    from ce_align.data.imagesets import ImageSet
    from ce_align.data.labelled import LabelledSplits
    from ce_align.data.recordings import Recording
    from ce_align.models.networks import Behaviour, Network, Probe
    from ce_align.stages.train import TrainOptions

__all__ = ["Hardware", "NetworkLayer", "Outcome", "Run"]

#: Columns with the names of data, as configurations have them.
DATA = ("recording", "images", "dataset")

RowType = TypeVar("RowType", bound=Row)
Loaded = TypeVar("Loaded")


@dataclass(frozen=True)
class Hardware:
    """Where networks run; no number depends on it by more than rounding.

    `device` is auto, cpu, cuda or mps, or several that share the images of a network
    (cuda:0,cuda:1; gpus for all); `batch_size` None for one by memory; `workers` are
    threads that render views; `compiled` is for torch.compile.
    """

    device: str = "auto"
    batch_size: int | None = None
    workers: int = 1
    compiled: bool = False


#: Columns of rows that are shown first, where they are.
SHOWN = (
    *("model", "other", "baseline", "recording", "dataset", "images", "layer"),
    *("metric", "measure", "value", "low", "high", "error", "raw", "ceiling"),
    *("n_networks", "p", "q", "note"),
)


@dataclass(repr=False)
class Outcome:
    """What a run did.

    Attributes
    ----------
    rows : of all stages, in the order of their configurations
    files : tables and figures that were written
    captions : what is noted under them
    tables : those that were built, `ce_align.report.paper.items.BuiltTable`
    notes : what a reader should know of the whole
    n_done, n_stored : configurations that were computed, and found in the store
    failures : what was asked for, and why it was not done
    store : where the rows are
    """

    rows: list[Row] = field(default_factory=list)
    files: list[Path] = field(default_factory=list)
    captions: list[str] = field(default_factory=list)
    tables: list[Any] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    n_done: int = 0
    n_stored: int = 0
    failures: list[tuple[str, CeAlignError]] = field(default_factory=list)
    store: ResultStore | None = None

    def of(self, row_type: type[RowType]) -> list[RowType]:
        """The rows of one type."""
        return [row for row in self.rows if isinstance(row, row_type)]

    @property
    def frame(self) -> "pd.DataFrame":
        """Every column of every row."""
        import pandas as pd

        return pd.DataFrame([row.model_dump() for row in self.rows])

    @property
    def arrays(self) -> "dict[str, xr.Dataset]":
        """Arrays behind the rows, such as r of every neuroid, by ``config_id``."""
        if self.store is None:
            return {}
        stages = dict.fromkeys((row.stage, row.config_id) for row in self.rows)
        return {
            config_id: self.store.arrays(stage, config_id)
            for stage, config_id in stages
            if self.store.has_arrays(stage, config_id)
        }

    def add(self, other: "Outcome") -> None:
        """Add what another part of the run did."""
        self.rows += other.rows
        self.files += other.files
        self.captions += other.captions
        self.tables += other.tables
        self.notes += other.notes
        self.n_done += other.n_done
        self.n_stored += other.n_stored
        # What several parts need has failed in each of them.
        told = {(what, str(error)) for what, error in self.failures}
        self.failures += [
            (what, error)
            for what, error in other.failures
            if (what, str(error)) not in told
        ]

    def __repr__(self) -> str:
        parts = [self._summary]
        if self.rows:
            parts.append(self._shown.to_string(index=False, na_rep="", max_rows=20))
        parts += [f"failed: {what}: {error}" for what, error in self.failures]
        return "\n".join([*parts, *self.notes])

    def _repr_html_(self) -> str:
        parts = [f"<p><b>{self._summary}</b></p>"]
        if self.rows:
            table = self._shown.to_html(index=False, na_rep="", max_rows=20, border=0)
            parts.append(table)
        for path in self.files:
            if path.suffix == ".png" and path.is_file():
                data = b64encode(read_bytes(path)).decode()
                parts.append(
                    f'<img src="data:image/png;base64,{data}" '
                    f'alt="{escape(path.stem)}" style="max-width: 45rem">'
                )
        lines = [f"failed: {what}: {error}" for what, error in self.failures]
        lines += [*self.captions, *self.notes]
        parts += [f"<p>{escape(line)}</p>" for line in lines]
        return "\n".join(parts)

    @property
    def _summary(self) -> str:
        counts = {
            f"{len(self.rows)} row{'' if len(self.rows) == 1 else 's'}": True,
            f"{len(self.files)} files": self.files,
            f"{self.n_stored} in the store already": self.n_stored,
            f"{len(self.failures)} failed": self.failures,
        }
        return ", ".join(text for text, there in counts.items() if there)

    @property
    def _shown(self) -> "pd.DataFrame":
        frame = self.frame.dropna(axis="columns", how="all")
        return frame[[name for name in SHOWN if name in frame]].round(4)


class NetworkLayer(NamedTuple):
    """A layer of a network, with what the probe has just found of it."""

    network: "Network"
    layer: str
    probe: "Probe"

    @classmethod
    def of(
        cls, network: "Network", layer: str, *, allow_unstable: bool = False
    ) -> "NetworkLayer":
        """One layer of a network, which is shown the images of the probe.

        Raises
        ------
        ConfigError
            If there is no such layer.
        DataError
            If it cannot be measured: its code fails, its output has no row an image,
            its responses are random or depend on the batch (unless `allow_unstable`).
        """
        probe = network.probe([layer], allow_unstable=allow_unstable)
        if layer in probe.failures:
            raise probe.failures[layer]
        return cls(network, layer, probe)

    @property
    def name(self) -> str:
        """Name of the network."""
        return self.network.name

    @property
    def facts(self) -> NetworkFacts:
        """How the network came to be."""
        return self.network.facts

    @property
    def digest(self) -> str:
        """Digest of the network and of the name of the layer."""
        return combine_digests(self.probe.digest, self.layer)

    @property
    def behaviour(self) -> "Behaviour | None":
        """What it is known by; None if nothing that is stored of it can be used."""
        return self.probe.behaviour(self.layer)

    @property
    def note(self) -> str | None:
        """What rows must say of it."""
        return self.probe.note(self.layer)


@dataclass
class Run:
    """What the stages of one run share.

    Attributes
    ----------
    store : where rows go, and are looked up
    hardware : of every stage that reads networks
    force : compute again what is stored, features too
    allow_unstable : measure layers, too, that are random or depend on the batch; their
        rows say so
    download : fetch published data sets that are not there
    runs : folder of trainings
    out : folder of tables and figures
    datasets : folder of published data sets; None for the one in the cache
    responses : folder of responses to views; None for the one in the cache
    given : networks, recordings, image sets and labelled data sets that are at hand,
        such as ``{("recording", name): recording}`` (network, images, dataset); all
        others are loaded by their names
    other_rows : files of rows that are correlated with those of the store
    training : how networks are trained; None for the defaults
    labels : of networks, by their names; others are called by `label_of`
    progress, notify : told of units done, and of what a person should know
    outcome : what was done so far
    """

    store: ResultStore
    hardware: Hardware = field(default_factory=Hardware)
    force: bool = False
    allow_unstable: bool = False
    download: bool = False
    runs: Path = Path("runs")
    out: Path = Path("paper-figures")
    datasets: Path | None = None
    responses: Path | None = None
    given: Mapping[tuple[str, str], Any] = field(default_factory=dict)
    other_rows: Sequence[Path] = ()
    training: "TrainOptions | None" = None
    labels: Mapping[str, str] = field(default_factory=dict)
    progress: Progress = silent
    notify: Notify = quiet
    outcome: Outcome = field(default_factory=Outcome)
    _loaded: dict[Hashable, Any] = field(default_factory=dict, repr=False)
    #: Failures that were noted, kept in `outcome` or `_loaded`, so that ids are unique.
    _told: set[int] = field(default_factory=set, repr=False)

    def __post_init__(self) -> None:
        self.outcome.store = self.store

    @contextmanager
    def attempt(self, what: str, *configs: StageConfig) -> Iterator[None]:
        """Note a failure of `what` instead of ending the run.

        What nobody foresaw is noted, too: one network must not end a night's work.
        Signals that ask to stop are passed on. The store keeps why there are no rows of
        `configs`, unless the fault is in what was asked for.
        """
        try:
            yield
        except Exception as error:
            found = explained(error)
            if found.exit_status >= 128:  # a training that a signal has stopped
                raise
            self.failed(what, found)
            for config in configs:
                self._keep_failure(config, found)

    def failed(self, what: str, error: CeAlignError) -> None:
        """Note a failure; of what several configurations need, once."""
        if id(error) not in self._told:
            self._told.add(id(error))
            self.outcome.failures.append((what, error))

    def _keep_failure(self, config: StageConfig, error: CeAlignError) -> None:
        if not isinstance(error, ConfigError):
            # What fills the disk is told, not that this cannot be written either.
            with suppress(CeAlignError):
                self.store.put_failure(config.stage, config, error)

    def load(self, what: str, key: Hashable, load: Callable[[], Loaded]) -> Loaded:
        """Load something once; its failure is noted once, and raised to all who ask."""
        if key not in self._loaded:
            try:
                self._loaded[key] = load()
            except Exception as error:
                self._loaded[key] = explained(error)
                # Why a training failed is not said again of the network.
                if all(what != name for name, _ in self.outcome.failures):
                    self.failed(what, self._loaded[key])
                self._told.add(id(self._loaded[key]))
        found: Any = self._loaded[key]
        if isinstance(found, CeAlignError):
            raise found
        return found  # type: ignore[no-any-return]

    def once(self, key: Hashable, load: Callable[[], Loaded]) -> Loaded:
        """Load something once; a failure is raised to who asks, and tried again."""
        if key not in self._loaded:
            self._loaded[key] = load()
        return self._loaded[key]  # type: ignore[no-any-return]

    def release(self, *kinds: str) -> None:
        """Forget what was loaded of these kinds, such as networks that are done."""
        for key in list(self._loaded):
            if isinstance(key, tuple) and key[0] in kinds:
                found = self._loaded[key]
                # Why something cannot be loaded is not asked again.
                if not isinstance(found, CeAlignError):
                    del self._loaded[key]

    def network(self, name: str, seed: int, *, live: bool = False) -> "Network":
        """A network by name.

        Parameters
        ----------
        name : of a network, or of features that were given
        seed : of weights that are random
        live : it must be a network that images can be shown to
        """
        from ce_align.models.brain import load_brain
        from ce_align.models.given import FeatureArray, load_features
        from ce_align.models.load import load_network, named_part
        from ce_align.models.untrained import untrained

        features = name.startswith((FEATURES, BRAIN))
        if live and (features or isinstance(self._given(name), FeatureArray)):
            raise ConfigError(
                f"{name} is an array of features, which can be scored; give a network "
                "for analyses and transfer, which show it other images"
            )
        if (given := self._given(name)) is not None:
            return given  # type: ignore[no-any-return]
        asked = split_name(name)
        whole = self._given(asked.source)
        if whole is not None:
            return named_part(whole, asked, name)

        def load() -> "Network":
            if name.startswith(BRAIN):
                rest = name.removeprefix(BRAIN)
                return load_brain(rest, self.recording)  # type: ignore[return-value]
            if (behind := network_behind(name)) and self._given(behind):
                return untrained(name, lambda known: self.network(known, seed))
            if features:
                return load_features(name)  # type: ignore[return-value]
            return load_network(name, seed=seed, progress=self.progress)

        return self.load(name, ("network", name, seed), load)

    def _given(self, network: str) -> Any:
        return self.given.get(("network", network))

    def recording(self, name: str) -> "Recording":
        """A recording by name."""
        from ce_align.data.named import load_recording

        if ("recording", name) in self.given:
            return self.given["recording", name]  # type: ignore[no-any-return]
        return self.load(name, ("recording", name), lambda: load_recording(name))

    def images(self, name: str, n: int) -> "ImageSet":
        """Images by name; procedural ones are as many as `n`."""
        from ce_align.data.scenes import find_images

        if ("images", name) in self.given:
            return self.given["images", name]  # type: ignore[no-any-return]
        return self.load(name, ("images", name, n), lambda: find_images(name, n))

    def splits(self, name: str) -> "LabelledSplits":
        """A labelled data set by name."""
        from ce_align.data.labelled import load_splits

        if ("dataset", name) in self.given:
            return self.given["dataset", name]  # type: ignore[no-any-return]
        root = self.datasets or cache_folder("datasets")
        return self.load(
            name,
            ("dataset", name),
            lambda: load_splits(name, root, download=self.download),
        )

    def recall(
        self,
        config: StageConfig,
        config_id: ConfigId,
        row_type: type[RowType],
        networks: Sequence[NetworkLayer],
        *,
        origin: str,
        **named: str,
    ) -> list[RowType] | None:
        """Stored rows of a configuration whose networks have not changed, or None.

        A network that has another name now, as after its folder was renamed, has the
        rows that it had, with its new name from now on. `networks` are all
        that the rows depend on, in the same order as for `keep`; they and `origin`, of
        the data, supply what rows of earlier versions lack; `named` are further columns
        that follow from the names of networks.
        """
        from ce_align.models.networks import Behaviour

        stage, store = config.stage, self.store
        now = [network.behaviour for network in networks]
        if self.force or None in now:
            return None
        namesake = store.namesake(stage, config_id.nameless) or config_id
        source: str = config_id
        rows = None
        for source in dict.fromkeys((config_id, config_id.spelled, namesake)):
            if rows := store.get(stage, source, row_type, self.notify):
                break
        if not rows:
            self._tell_changes(config, config_id, networks)
            return None
        stored = store.behaviours(stage, source)
        then = [Behaviour.read(document) for document in stored]
        for network, behaviour, known in zip(networks, now, then, strict=False):
            if behaviour is None or known is None or not known.agrees(behaviour):
                self.notify(
                    f"{network.name} {network.layer} gives other features than when "
                    f"its {stage} rows were stored; they are computed again"
                )
                return None
        if len(then) != len(now):
            return None
        if source == config_id.spelled:  # what release 0.1 stored stays where it is
            config_id = config_id.spelled
        before = [_names(row, *named) for row in rows]
        rows = [_renamed(row, config, config_id, named) for row in rows]
        rows = self._with_facts(rows, networks, origin)
        if source != config_id:
            has_arrays = store.has_arrays(stage, source)
            arrays = store.arrays(stage, source) if has_arrays else None
            self._put(config, config_id, rows, networks, arrays)
        elif before != [_names(row, *named) for row in rows]:
            self._put(config, config_id, rows, networks, None)
        store.clear_failure(stage, config)
        self.outcome.n_stored += 1
        return rows

    def _tell_changes(
        self, config: StageConfig, config_id: ConfigId, networks: Sequence[NetworkLayer]
    ) -> None:
        """Say what is another since rows of the same settings were stored, if any are.

        The latest count; those of ce_align 0.1 do not say what they were made from.
        """
        stage = config.stage
        if ("settings", stage) not in self._loaded:
            found = self.store.documents(stage, sound=True)
            documents = sorted(found, key=_created)
            self._loaded["settings", stage] = {
                digest_json(document.get("config")): document for document in documents
            }
        settings = digest_json(config.model_dump(mode="json"))
        then = self._loaded["settings", stage].get(settings, {})
        before = then.get("identities", [])
        changed = []
        for network, known in zip(networks, before, strict=False):
            now = network.probe.summary()
            parts = [k for k in {**now, **known} if now.get(k) != known.get(k)]
            changed += [f"{named_some(parts)} of {network.name}"] if parts else []
        content = then.get("content", {})
        changed += [
            name
            for name, digest in config_id.content.items()
            if content
            and content.get(name) != digest
            and digest not in {network.probe.digest for network in networks}
        ]
        if changed:
            self.notify(
                f"{' and '.join(changed)} differ from when {stage} rows of these "
                "settings were stored; they are computed again"
            )

    def keep(
        self,
        config: StageConfig,
        config_id: ConfigId,
        rows: Sequence[RowType],
        networks: Sequence[NetworkLayer] = (),
        arrays: "xr.Dataset | None" = None,
        *,
        origin: str | None = None,
    ) -> list[RowType]:
        """Store rows that were computed, with the behaviour of their networks.

        Returns
        -------
        The rows as they were stored: with `origin`, of their data, and with what is
        known of their networks.
        """
        found = self._with_facts(rows, networks, origin)
        self._put(config, config_id, found, networks, arrays)
        self.outcome.n_done += 1
        return found

    def _with_facts(
        self,
        rows: Sequence[RowType],
        networks: Sequence[NetworkLayer],
        origin: str | None,
    ) -> list[RowType]:
        """Rows with what is known of their networks, the first and perhaps a second."""
        found = []
        for row in rows:
            known: dict[str, Any] = {"origin": origin}
            role = "other" if hasattr(row, "other") else "baseline"
            for place, network in zip(("", f"{role}_"), networks, strict=False):
                name = getattr(row, role if place else "model", None)
                if name is None:
                    continue
                facts = network.facts.columns()
                stored = getattr(row, f"{place}label")
                facts["label"] = self.labels.get(name) or stored or label_of(name)
                columns = SECOND if place else FACTS
                known |= {f"{place}{column}": facts[column] for column in columns}
            # A name under which less is known does not erase what was known.
            update = {name: value for name, value in known.items() if value is not None}
            found.append(row.model_copy(update=update))
        return found

    def _put(
        self,
        config: StageConfig,
        config_id: ConfigId,
        rows: Sequence[Row],
        networks: Sequence[NetworkLayer],
        arrays: "xr.Dataset | None",
    ) -> None:
        behaviours = [network.behaviour for network in networks]
        self.store.put(
            config.stage,
            config_id,
            config,
            rows,
            arrays,
            behaviours=[None if b is None else b.document() for b in behaviours],
            identities=[network.probe.summary() for network in networks],
            nameless=config_id.nameless if networks else None,
        )


def _created(document: Mapping[str, Any]) -> str:
    """When the rows of a stored result were computed."""
    return max((str(row.get("created")) for row in document["rows"]), default="")


def _renamed(
    row: RowType, config: StageConfig, config_id: str, named: Mapping[str, str]
) -> RowType:
    """A row with the names that its networks have in a configuration."""
    names = config.model_dump()
    found = {
        **named,
        "config_id": config_id,
        "model": names.get("model") or names.get("model_a") or row.model,
        "other": names.get("model_b"),
        "baseline": names.get("baseline"),
    }
    paths = {k: str(names[k]) for k in DATA if k in names}
    found |= {k: name for k, name in paths.items() if without_path(name, k) != name}
    update = {k: v for k, v in found.items() if getattr(row, k, None) is not None}
    # A label that followed from the name that it had says nothing of the new one.
    for column, name in LABELLED.items():
        label = getattr(row, column, None)
        if label is not None and label == label_of(getattr(row, name)):
            update[column] = None
    return row.model_copy(update=update)


def _names(row: Row, *further: str) -> dict[str, str | None]:
    """Names and labels in a row, and `further` columns that are made of them."""
    columns = (*DATA, *LABELLED.values(), *further)
    found = {name: getattr(row, name, None) for name in columns}
    for column, role in LABELLED.items():
        if (name := found[role]) is not None:
            found[column] = getattr(row, column, None) or label_of(name)
    return found
