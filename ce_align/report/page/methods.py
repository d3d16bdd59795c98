"""What a paper would say of stored rows: methods, references, and the words used."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from ce_align import __version__
from ce_align.brainscore.plugin.writing import PAPER, TORCHVISION
from ce_align.checks import named_some
from ce_align.data.named import RECORDINGS
from ce_align.report.page.stored import Source
from ce_align.report.style import measure_name, objective_label
from ce_align.stages.measures import MEASURES
from ce_align.stages.similarities import SIMILARITIES

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["GLOSSARY", "READING", "methods_of", "references"]

#: Words of the page, each as it is meant here.
GLOSSARY = {
    "λ": "equivariance weight: the share of the equivariant term in the objective that "
    "a network was trained with; 0 is the invariant network.",
    "raw r": "Pearson correlation of predicted and recorded responses to held-out "
    "stimuli: median over neuroids, mean over splits.",
    "ceiling": "how well the recording agrees with itself, as the r² that a perfect "
    "model would reach. Its kind is in the rows.",
    "score": "raw r² divided by the ceiling; 1 means that everything is explained that "
    "repeats.",
    "± of a score": "standard deviation of raw r over splits, divided by the root of "
    "their number; for a mean over animals, its standard error over animals.",
    "neuroid": "one site or unit, recorded or simulated.",
    "D_B": "squared Bures distance between the shapes of two clouds of responses, each "
    "scaled to unit total variance: 0 for equal shapes, at most 2.",
    "floor": "squared Bures distance between two halves of one cloud, which is not 0 "
    "for finitely many points; it depends on their number.",
    "excess": "distance between halves of different clouds minus the floor; its "
    "expectation is 0 where both are of one source.",
    "Δ": "distance of the baseline, a network of λ = 0, minus that of the network.",
    "R²": "1 − squared error / variance on held-out images; below 0 where a constant "
    "would have predicted better.",
    "interval": "95 %; what it is over (images, classes, networks) stands beside it.",
    "within objectives": "correlation after each objective's mean has been taken off "
    "both sides, so that differences between objectives do not count.",
    "p": "share of exchanges of networks within their objective that give a "
    "correlation at least as large.",
    "q": "false discovery rate of Benjamini and Hochberg over all measures and "
    "recordings of one table; below .05 a correlation holds after correction.",
    "n": "number of networks, unless another unit is named.",
}

#: How to read each section, by its anchor.
READING = {
    "figures": "Each caption defines what is drawn; the line under it says where the "
    "numbers are from. `What is drawn, as numbers` unfolds the data, and every number "
    "that is stored leads to its row.",
    "tables": "A dash is a number that was never computed; `failed` is one that was "
    "tried. Headings sort, and each table can be saved as CSV.",
    "rows": "Every number that is stored, one row each. What is the same in all rows "
    "stands above the table. A value leads to its provenance.",
}

REFERENCES = {
    "ce_align": f"""@software{{ce_align,
  title = {{ce_align}},
  author = {{{{The ce_align authors}}}},
  version = {{{__version__}}}
}}""",
    "paper": PAPER.strip(),
    "torchvision": TORCHVISION.strip(),
    "brainscore": """@article{schrimpf2018brainscore,
  title = {Brain-Score: Which Artificial Neural Network for Object Recognition is most Brain-Like?},
  author = {Schrimpf, Martin and Kubilius, Jonas and Hong, Ha and Majaj, Najib J. and Rajalingham, Rishi and Issa, Elias B. and Kar, Kohitij and Bashivan, Pouya and Prescott-Roy, Jonathan and Geiger, Franziska and Schmidt, Kailyn and Yamins, Daniel L. K. and DiCarlo, James J.},
  journal = {bioRxiv},
  year = {2018},
  doi = {10.1101/407007}
}""",  # noqa: E501
    "pls": """@article{lindgren1993kernel,
  title = {The kernel algorithm for {PLS}},
  author = {Lindgren, Fredrik and Geladi, Paul and Wold, Svante},
  journal = {Journal of Chemometrics},
  volume = {7},
  number = {1},
  pages = {45--59},
  year = {1993}
}""",
    "ridge": """@article{hoerl1970ridge,
  title = {Ridge Regression: Biased Estimation for Nonorthogonal Problems},
  author = {Hoerl, Arthur E. and Kennard, Robert W.},
  journal = {Technometrics},
  volume = {12},
  number = {1},
  pages = {55--67},
  year = {1970}
}""",
    "bures": """@article{bhatia2019bures,
  title = {On the {Bures}--{Wasserstein} distance between positive definite matrices},
  author = {Bhatia, Rajendra and Jain, Tanvi and Lim, Yongdo},
  journal = {Expositiones Mathematicae},
  volume = {37},
  number = {2},
  pages = {165--191},
  year = {2019}
}""",
    "correlate": """@article{benjamini1995controlling,
  title = {Controlling the False Discovery Rate: A Practical and Powerful Approach to Multiple Testing},
  author = {Benjamini, Yoav and Hochberg, Yosef},
  journal = {Journal of the Royal Statistical Society: Series B},
  volume = {57},
  number = {1},
  pages = {289--300},
  year = {1995}
}""",  # noqa: E501
    "simclr": """@inproceedings{chen2020simple,
  title = {A Simple Framework for Contrastive Learning of Visual Representations},
  author = {Chen, Ting and Kornblith, Simon and Norouzi, Mohammad and Hinton, Geoffrey},
  booktitle = {International Conference on Machine Learning},
  year = {2020}
}""",
    "barlow": """@inproceedings{zbontar2021barlow,
  title = {Barlow Twins: Self-Supervised Learning via Redundancy Reduction},
  author = {Zbontar, Jure and Jing, Li and Misra, Ishan and LeCun, Yann and Deny, St{\\'e}phane},
  booktitle = {International Conference on Machine Learning},
  year = {2021}
}""",  # noqa: E501
    "mmcr": """@inproceedings{yerxa2023learning,
  title = {Learning Efficient Coding of Natural Images with Maximum Manifold Capacity Representations},
  author = {Yerxa, Thomas and Kuang, Yilun and Simoncelli, Eero P. and Chung, SueYeon},
  booktitle = {Advances in Neural Information Processing Systems},
  year = {2023}
}""",  # noqa: E501
}

REGRESSIONS = {
    "pls": "partial least squares",
    "ridge": "ridge regression",
    "ridgecv": "ridge regression whose strength is cross-validated",
    "reverse_pls": "partial least squares from neuroids to units of the network",
    "neuron_to_neuron": "the unit that is most like each neuroid",
}


def methods_of(rows: "pd.DataFrame", sources: Sequence[Source]) -> list[str]:
    """Paragraphs on how the rows were computed, of what they say themselves."""
    networks = rows["model"][~rows["stage"].isin(("correlate", "train"))].nunique()
    parts = [
        f"{networks} network{'s were' if networks != 1 else ' was'} analysed with "
        f"ce_align {' and '.join(sorted(map(str, _distinct(rows, 'version'))))}."
    ]
    scores = rows[rows["stage"] == "score"]
    if len(scores):
        parts += _scored(scores)
    if len(found := rows[rows["stage"] == "similarity"]):
        parts += _similar(found)
    measured = [source for source in sources if source.stage == "analyze"]
    parts += _measured(measured)
    if len(found := rows[rows["stage"] == "transfer"]):
        parts.append(
            "Transfer is top-1 accuracy, or its mean over classes, of a linear readout "
            f"of frozen features on {named_some(_distinct(found, 'dataset'))}; the L2 "
            "strength was chosen on held-out training images."
        )
    correlated = [source for source in sources if source.stage == "correlate"]
    if correlated:
        n = correlated[-1].config.get("permutations", "")
        parts.append(
            "Measures and scores were correlated (Pearson) across networks; p values "
            f"are of {n} exchanges of networks within their objective, q is the false "
            "discovery rate (Benjamini–Hochberg) over all measures and recordings."
        )
    if len(trained := rows[rows["stage"] == "train"]):
        names = [objective_label(str(o)) for o in _distinct(trained, "objective")]
        parts.append(
            f"Networks were trained with the contrastive-equivariant form of "
            f"{named_some(names)}, in which λ weighs the equivariant against the "
            "invariant term."
        )
    origins = {o for cell in rows["origin"].dropna() for o in str(cell).split("+")}
    if "simulated" in origins:
        parts.append(
            "Rows marked as simulated are of procedural images or of simulated "
            "responses, not of an animal."
        )
    return parts


def _scored(scores: "pd.DataFrame") -> Iterator[str]:
    """A sentence for all recordings that are scored in one way."""
    alike: dict[tuple[str, str, str], list[str]] = {}
    for recording, group in scores.groupby("recording", sort=False):
        last = group.iloc[-1]
        names = [REGRESSIONS.get(r, r) for r in _distinct(group, "regression")]
        splits = _distinct(group, "n_splits")
        way = (
            "the recording's own split"
            if splits == [1]
            else f"{' or '.join(f'{n:g}' for n in splits)} random splits into training "
            "and test stimuli"
        )
        ceilings = map(str, _distinct(group, "ceiling_kind"))
        key = (" or ".join(names), way, " or ".join(ceilings))
        about = [
            str(last["region"]),
            *(
                f"{last[f'n_{what}']:.0f} {what}"
                for what in ("neuroids", "stimuli")
                if last.get(f"n_{what}") is not None
            ),
        ]
        alike.setdefault(key, []).append(f"{recording} ({', '.join(about)})")
    for (regression, way, ceiling), recordings in alike.items():
        kind = f" (ceiling: {ceiling})" if ceiling else ""
        yield (
            f"Predictivity of {', '.join(recordings)} is the correlation of "
            "trial-averaged responses with those predicted from a layer's features by "
            f"{regression} over {way}: median over neuroids, mean over splits. Scores "
            f"are r² / ceiling{kind}."
        )


def _similar(rows: "pd.DataFrame") -> Iterator[str]:
    """A sentence for each similarity."""
    for name, own in rows.groupby("metric", sort=False):
        known = SIMILARITIES.get(str(name))
        about = f": {known.about}" if known else ""
        methods = named_some(list(map(str, _distinct(own, "method"))))
        over = named_some(list(map(str, _distinct(own, "interval"))))
        yield (
            f"{measure_name(str(name))}{f' ({methods})' if methods else ''} to "
            f"{named_some(_distinct(own, 'recording'))}{about}; the floor has stimuli "
            "exchanged"
            + (f", 95 % intervals are over {over} (jackknife)." if over else ".")
        )


def _measured(sources: Sequence[Source]) -> Iterator[str]:
    by_metric: dict[str, list[Source]] = {}
    for source in sources:
        by_metric.setdefault(str(source.config.get("metric")), []).append(source)
    for name, measure in MEASURES.items():
        own = by_metric.get(name)
        if not own:
            continue
        rows = [row.values for source in own for row in source.rows]
        over = sorted({str(r["interval"]) for r in rows if r.get("interval")})
        interval = f", with 95 % intervals over {' or '.join(over)}" if over else ""
        yield (
            f"{name.capitalize()} ({measure.about}) was measured on "
            f"{_values(own, 'images')}, at {_values(own, 'size')} px, with "
            f"{_values(own, 'views')} views of each image and at most "
            f"{_values(own, 'comparisons')} comparisons{interval}."
        )


def _distinct(rows: "pd.DataFrame", column: str) -> list[Any]:
    return list(dict.fromkeys(rows[column].dropna())) if column in rows else []


def _values(sources: Sequence[Source], name: str) -> str:
    """Distinct values of a setting, in words."""
    found = dict.fromkeys(str(source.config.get(name)) for source in sources)
    return " or ".join(found)


def references(rows: "pd.DataFrame") -> str:
    """BibTeX of what the rows rest on; recordings as they state their citation."""
    stages = set(rows["stage"])
    keys = ["ce_align", "paper"]
    if stages & {"score", "official"}:
        keys.append("brainscore")
        names = " ".join(map(str, _distinct(rows, "regression")))
        keys += [key for key in ("pls", "ridge") if key in names]
    if set(_distinct(rows, "metric")) & {q.name for q in MEASURES["bures"].quantities}:
        keys.append("bures")
    keys += [key for key in ("correlate",) if key in stages]
    keys += [key for key in _distinct(rows, "objective") if key in REFERENCES]
    models = [str(name) for name in rows["model"]]
    if any(name.startswith("torchvision/") for name in models):
        keys.append("torchvision")
    found = [REFERENCES[key] for key in dict.fromkeys(keys)]
    for name in _distinct(rows, "recording"):
        entry = RECORDINGS.get(str(name))
        if entry is not None and entry.citation:
            found.append(f"@misc{{{entry.name},\n  note = {{{entry.citation}}}\n}}")
    return "\n\n".join(found)
