"""Scores that were measured elsewhere, such as Brain-Score's by submission, as rows."""

import csv
import math
import re
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from ce_align.checks import named_some, nearest_names
from ce_align.config import StageConfig
from ce_align.digests import digest_json
from ce_align.errors import DataError
from ce_align.files import check_regular
from ce_align.results import FACTS, PROVENANCE, NetworkFacts, ResultStore, Row
from ce_align.stages.earlier import stored_rows
from ce_align.stages.running import Run

__all__ = ["ImportConfig", "ImportedRow", "execute", "import_scores", "shared"]

NEEDED = ("model", "benchmark", "score")
#: Further columns that are read where they are there.
OPTIONAL = ("raw", "error", "ceiling")

#: How Brain-Score's tables write that a network could not be scored.
NO_SCORE = {"", "x", "nan", "none", "-"}

#: A score may exceed 1, as a ceiling is an estimate; beyond this it is in percent.
MOST = 2.0

#: As many networks without a score are named.
NAMED = 3

#: Raw correlation, ceiling and score that are rounded still agree so well.
AGREEMENT = 0.01


class ImportConfig(StageConfig):
    """Where scores were read from."""

    stage: ClassVar = "imported"

    file: str


class ImportedRow(Row):
    """A score that others measured.

    `value` is as stated: for neural benchmarks raw² / ceiling. `raw` is stated, or
    follows from the ceiling; it, `error` and `ceiling` are None where nothing is
    known. `model_digest` is known where the network's identifier ends with it, as those
    of one's own submissions do; else a score is joined by the name of its network.
    """

    stage: str = ImportConfig.stage
    origin: str | None = "imported"
    recording: str
    region: str | None
    layer: str | None = None
    benchmark: str
    raw: float | None
    error: float | None
    ceiling: float | None
    imported_from: str
    model_digest: str | None = None


@dataclass(frozen=True)
class _Network:
    """The network that a score is of."""

    name: str
    digest: str | None = None
    facts: NetworkFacts = field(default_factory=NetworkFacts)


def shared(config: ImportConfig) -> Hashable:
    """What configurations have in common that are read together: all of it."""
    return config


def execute(configs: Sequence[ImportConfig], run: Run) -> None:
    """Store scores of tables as rows that are marked as imported."""
    for config in configs:
        with run.attempt(config.file):
            import_scores(config, run)


def import_scores(config: ImportConfig, run: Run) -> None:
    """Store scores of a table as rows that are marked as imported.

    Importing an unchanged file again changes nothing; of two files that score the same
    network on the same benchmark, the one imported last counts. Networks and benchmarks
    that the file has no score of are noted.

    Parameters
    ----------
    config : a CSV with the columns ``model`` (a name of ours, or that in Brain-Score),
        ``benchmark`` (Brain-Score's identifier) and ``score``, and perhaps ``raw``,
        ``error`` and ``ceiling``
    run : where the rows go

    Raises
    ------
    DataError
        If the file is no such table, a benchmark does not exist, a number is none, or
        a network has two scores on one benchmark.
    """
    path = Path(config.file)
    lines = _read(path)
    first: dict[str, int] = {}
    for number, text in lines.items():
        first.setdefault(text["benchmark"], number)
    benchmarks = _benchmarks(first, path)
    names = _our_names(run.store)
    rows: dict[tuple[str, str | None, str], ImportedRow] = {}
    without: list[str] = []
    for number, text in lines.items():
        if text["score"].lower() in NO_SCORE:
            without.append(f"{text['model']} × {text['benchmark']}")
            continue
        network = names.get(text["model"], _Network(text["model"]))
        benchmark = benchmarks[text["benchmark"]]
        row = _row(network, text, benchmark, f"{path} line {number}", path.name)
        known = rows.setdefault((row.model, row.model_digest, row.recording), row)
        if known.value != row.value:
            raise DataError(
                f"{path} line {number}: {row.model} has another score on "
                f"{row.benchmark}, {known.value:g}; keep one of them"
            )
    if not rows:
        raise DataError(f"{path} holds no score")
    # Digests follow from the names, as far as the store knew them.
    content = digest_json(
        [row.model_dump(exclude={"model_digest", *PROVENANCE}) for row in rows.values()]
    )
    config_id = config.fingerprint(rows=content)
    found = [row.model_copy(update={"config_id": config_id}) for row in rows.values()]
    run.keep(config, config_id, found)
    run.outcome.rows += found
    if without:
        run.outcome.notes.append(f"no score of {named_some(without, NAMED)}")


def _read(path: Path) -> dict[int, dict[str, str]]:
    """Cells of each line by column, all text, by the number of the line."""
    try:
        with check_regular(path).open(newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file, strict=True)
            header = [name.strip().lower() for name in next(reader, [])]
            lines = [(reader.line_num, cells) for cells in reader if any(cells)]
    except (OSError, UnicodeError, csv.Error) as error:
        told = getattr(error, "strerror", None) or error
        raise DataError(f"cannot read {path} as CSV: {told}") from error
    missing = [name for name in NEEDED if name not in header]
    if missing or len(set(header)) < len(header):
        raise DataError(
            f"{path} needs the columns {', '.join(NEEDED)}, each once, found "
            f"{', '.join(header) or 'none'}"
        )
    columns = [name for name in (*NEEDED, *OPTIONAL) if name in header]
    found = {}
    for number, cells in lines:
        if len(cells) != len(header):
            raise DataError(
                f"{path} line {number} has {len(cells)} cells, expected {len(header)}"
            )
        text = {name: cells[header.index(name)].strip() for name in columns}
        if not text["model"]:
            raise DataError(f"{path} line {number} names no model")
        found[number] = text
    return found


@dataclass(frozen=True)
class _Benchmark:
    """A benchmark, and the recording that it scores against."""

    identifier: str
    recording: str
    region: str | None


def _benchmarks(named: Mapping[str, int], path: Path) -> dict[str, _Benchmark]:
    """Each benchmark by the name it has in the file."""
    from ce_align.brainscore.datasets import DATASETS

    recordings = {entry.benchmark_id: name for name, entry in DATASETS.items()}
    found, registered, unknown = {}, [*recordings], []
    for name, line in named.items():
        identifier = DATASETS[name].benchmark_id if name in DATASETS else name
        known = _registered(identifier, registered)
        if known is None and len(registered) == len(recordings):
            from ce_align.brainscore.benchmarks import benchmark_names

            registered += benchmark_names()
            known = _registered(identifier, registered)
        if known is None:
            unknown.append(f"{name!r} (line {line})")
            continue
        region = re.search(r"\.(V1|V2|V4|IT)-", known)
        found[name] = _Benchmark(
            known, recordings.get(known, f"brainscore/{known}"), region and region[1]
        )
    if unknown:
        first = next(name for name in named if name not in found)
        near = ", ".join(nearest_names(first, registered)) or "none"
        raise DataError(
            f"{path}: Brain-Score has no benchmark {named_some(unknown)}; nearest: "
            f"{near}; correct these lines or leave them out"
        )
    return found


def _registered(name: str, registered: Iterable[str]) -> str | None:
    """The registered identifier that tables write with a version or a lab's name."""
    plain = re.sub(r"[._]v\d+$", "", name)
    known = set(registered)
    choices = (name, plain, plain.partition(".")[2])
    return next((choice for choice in choices if choice in known), None)


def _row(
    network: _Network,
    text: Mapping[str, str],
    benchmark: _Benchmark,
    where: str,
    file: str,
) -> ImportedRow:
    score = _number(text["score"], "score", where)
    numbers = {
        name: None
        if text.get(name, "").lower() in NO_SCORE
        else _number(text[name], name, where)
        for name in OPTIONAL
    }
    raw, ceiling = numbers["raw"], numbers["ceiling"]
    if ceiling is not None and not 0 < ceiling <= 1:
        raise DataError(
            f"{where}: a ceiling lies above 0 and up to 1, found {ceiling:g}"
        )
    if raw is None and ceiling is not None and score >= 0:
        raw = math.sqrt(score * ceiling)
    elif raw is not None and ceiling is not None:
        follows = raw**2 / ceiling
        if abs(follows - score) > AGREEMENT:
            raise DataError(
                f"{where}: raw² / ceiling is {follows:.4f}, but the score {score:.4f}"
            )
    return ImportedRow(
        model=network.name,
        metric="predictivity",
        value=score,
        config_id="",
        recording=benchmark.recording,
        region=benchmark.region,
        benchmark=benchmark.identifier,
        raw=raw,
        error=numbers["error"],
        ceiling=ceiling,
        imported_from=file,
        model_digest=network.digest,
        **network.facts.columns(),
    )


def _number(text: str, what: str, where: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise DataError(
            f"{where}: the {what} {text!r} is no number; correct it or leave it empty"
        )
    if abs(number) > MOST:
        raise DataError(
            f"{where}: the {what} {text} is no share of 1; divide percentages by 100"
        )
    return number


def _our_names(store: ResultStore) -> dict[str, _Network]:
    """Networks here by their names in Brain-Score.

    Ours and others' submissions. A network of one's own is known by the digest at the
    end of its identifier, where the store has rows of it.
    """
    from ce_align.brainscore.submission import default_identifier
    from ce_align.models.catalogue import PUBLISHED

    found: dict[str, _Network] = {}
    for row in stored_rows(store):
        model, digest = row.get("model"), row.get("model_digest")
        if model and digest:
            facts = NetworkFacts(**{name: row.get(name) for name in FACTS})
            network = _Network(model, digest, facts)
            found[default_identifier(model, digest)] = network
            found[f"{model}-{digest}"] = network
    for name, entry in PUBLISHED.items():
        network = _Network(name, None, entry.facts)
        found[name] = found[default_identifier(name, "")] = network
        if entry.brainscore_id is not None:
            found[entry.brainscore_id] = network
    return found
