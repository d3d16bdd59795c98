"""Networks as folders for the hub: weights, configuration, and a card with scores."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ce_align.errors import ConfigError
from ce_align.names import split_name
from ce_align.progress import Notify, quiet
from ce_align.results import ResultStore, Row
from ce_align.stages.scores import ScoreRow

if TYPE_CHECKING:
    from ce_align.models.networks import Network

__all__ = ["export", "share"]


def export(
    network: "Network",
    folder: Path,
    store: ResultStore,
    *,
    licence: str | None = None,
    notify: Notify = quiet,
) -> Path:
    """Write a network as a folder that timm loads and the hub shows.

    Parameters
    ----------
    network : as it was loaded
    folder : gets ``config.json``, ``model.safetensors`` and ``README.md``
    store : scores of the same network in it stand in the card
    licence : of the weights, as the hub spells it, such as ``cc-by-4.0``
    notify : told where timm cannot load the folder

    Raises
    ------
    ConfigError
        If nobody could build the network again, or timm is not installed.
    """
    if split_name(network.name).part:
        raise ConfigError(f"{network.name} is a part of a network; export the whole")
    facts = network.facts
    settings = {k: v for k, v in asdict(facts).items() if v is not None}
    settings |= {"images": facts.pretraining, "seed": facts.network_seed}
    metadata: dict[str, Any] = {
        **network.preprocessing.model_dump(mode="json"),
        "layers": dict(network.layers),
        "config": {k: v for k, v in settings.items() if v is not None},
    }
    digest = network.digest
    rows = [
        ScoreRow(**row)
        for document in store.documents(ScoreRow.model_fields["stage"].default)
        for row in document["rows"]
        if row.get("model_digest") == digest and row.get("animal") is None
    ]
    share(network, folder, metadata, rows, licence=licence, notify=notify)
    return folder


def share(
    network: "Network",
    folder: Path,
    metadata: Mapping[str, Any],
    rows: Sequence[Row],
    *,
    licence: str | None = None,
    notify: Notify = quiet,
) -> None:
    """Write the folder of a network, with the rows that are known of it in its card."""
    from ce_align.models.hub import write_hub

    loads = write_hub(
        network,
        folder,
        lambda timm: _card(network, folder, rows, licence, timm),
        metadata,
    )
    if not loads:
        notify(f"{folder}: timm does not build {network.name}; ce-align does")


def _card(
    network: "Network",
    folder: Path,
    rows: Sequence[Row],
    licence: str | None,
    by_timm: bool,
) -> str:
    """README.md: front matter, how the network came to be, its use, its numbers."""
    from ce_align.brainscore.plugin.writing import PAPER

    facts = network.facts
    stated = {
        "Objective": facts.objective,
        "Equivariance weight λ": facts.equivariance_weight,
        "Architecture": facts.backbone,
        "Epochs": facts.epochs,
        "Trained on": facts.pretraining,
        "Augmentation": facts.augmentation,
        "Seed": facts.network_seed,
        "Licence of the weights": licence or "not stated",
    }
    lines = [
        "---",
        f"library_name: {'timm' if by_timm else 'ce-align'}",
        "pipeline_tag: image-feature-extraction",
        *([f"license: {licence}"] if licence else []),
        *(["tags: [contrastive-equivariant]"] if facts.objective else []),
        "---",
        f"# {folder.name}",
        "",
        *_table(("", ""), [(k, v) for k, v in stated.items() if v is not None]),
        "",
        "## Use",
        "",
        "```bash",
        f"ce-align score --model {'local-dir:' if by_timm else ''}{folder.name} "
        "--recording majajhong2015-public",
        "```",
    ]
    if by_timm:
        lines += [
            *("```python", "import timm"),
            f'timm.create_model("local-dir:{folder.name}", pretrained=True)',
            "```",
        ]
    scores = [row for row in rows if isinstance(row, ScoreRow)]
    if scores:
        head = ("recording", "data", "layer", "regression", "r", "ceiling", "score")
        cells = [
            (
                *(f"{row.recording} ({row.region})", row.origin, row.layer),
                *(row.regression, row.raw, row.ceiling, row.value),
            )
            for row in scores
        ]
        lines += [
            *("", "## Predictivity", ""),
            "`score` is r² / ceiling. Simulated data say nothing of a brain.",
            *("", *_table(head, cells)),
        ]
    others = [(row.metric, row.value) for row in rows if not isinstance(row, ScoreRow)]
    if others:
        lines += ["", "## At the end of training", "", *_table(("", "value"), others)]
    if facts.objective:
        lines += ["", "## Reference", "", "```bibtex", PAPER.strip(), "```"]
    return "\n".join(lines) + "\n"


def _table(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> list[str]:
    def line(cells: Sequence[Any]) -> str:
        shown = (f"{c:.4g}" if isinstance(c, float) else str(c) for c in cells)
        return f"| {' | '.join('' if c == 'None' else c for c in shown)} |"

    return [line(head), line(["---"] * len(head)), *map(line, rows)]
