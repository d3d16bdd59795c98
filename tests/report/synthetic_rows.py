"""Synthetic rows of every stage: smooth functions, no measurement behind any."""

import math

import numpy as np
import pandas as pd
import xarray as xr

from ce_align.config import StageConfig
from ce_align.report.inputs import Inputs
from ce_align.results import Row
from ce_align.stages.measures import MEASURES as OF_VIEWS
from ce_align.trainer.objectives import gradient_share

REMARK = "Synthetic rows made for a test; no network and no animal is behind them."
WEIGHTS = ("0", "0.001", "0.1", "0.2", "0.3", "0.4", "0.5")
OBJECTIVES = ("mmcr", "barlow", "simclr")
#: Comparison, D_B at λ = 0, largest difference, smallest cloud.
SHAPES = (
    ("augmentation_augmentation", 0.9, 0.45, 50),
    ("augmentation_centroid", 1.2, -0.02, 50),
    ("spatial_photometric", 0.8, -0.04, 20),
    ("class_class", 1.0, 0.12, 50),
)
RECORDINGS = (("set 1", 0.81), ("set 2", 0.64), ("set 3", 0.72), ("set 4", 0.58))
DATASETS = ("cifar10", "cifar100", "pets", "dtd", "flowers102", "food101")
MEASURES = (*(shape[0] for shape in SHAPES), "decoding_ridge", "decoding_ridge_hue")
N_COMPARISONS = 6


class Settings(StageConfig):
    name: str


class AnyRow(Row, extra="allow"):
    stage: str = "any"


def digest(model):
    """Every name has a network of its own."""
    return f"digest of {model}"


def row(model, metric, value, **columns):
    fixed = {"config_id": f"{model}-{metric}".replace("/", "_"), "version": "0"}
    created = columns.pop("created", "2024-01-01T00:00:00+00:00")
    return {"model": model, "metric": metric, "value": value, "created": created} | (
        fixed | columns
    )


def networks():
    """Name, objective, λ and a phase that tells objectives apart."""
    for k, objective in enumerate(OBJECTIVES):
        for weight in WEIGHTS:
            yield f"ce_{objective}_l{weight}", objective, float(weight), 0.7 * k


def analysis_rows():
    common = {"layer": "layer4", "n_units": 100, "n_comparisons": N_COMPARISONS}
    common |= {"images": "some images", "interval": "images", "seed": 0}
    for model, objective, weight, phase in networks():
        rise = weight / 0.5
        digests = dict.fromkeys(("images_digest", "views_digest"), "d")
        digests["model_digest"] = digest(model)
        for name, at_zero, most, n in SHAPES:
            delta = most * rise * (1 + 0.3 * math.cos(phase))
            spread = {"low": 0.93 * delta - 0.002, "high": 1.05 * delta + 0.002}
            fixed = common | digests | {"n_points": n, "config_id": f"bures-{model}"}
            if name == "class_class":
                fixed["interval"] = "classes"
            distance = {"low": None, "high": None, "baseline": None}
            yield row(model, name, at_zero - delta, **fixed, **distance)
            if weight:
                baseline = {"baseline": f"ce_{objective}_l0"}
                baseline["baseline_digest"] = digest(baseline["baseline"])
                yield row(model, f"{name}_delta", delta, **fixed, **spread, **baseline)
        fixed = common | digests | {"n_points": 400, "interval": "images"}
        r2 = 0.44 + 0.25 * rise * (1 - 0.2 * math.sin(phase)) - 0.1 * rise**2
        for suffix, change in (
            ("", 0.0),
            ("_hue", -0.2),
            ("_weak", -0.1),
            ("_strong_only", 0.06),
        ):
            value = r2 + change
            spread = {"low": value - 0.015, "high": value + 0.015, "baseline": None}
            yield row(model, f"decoding_ridge{suffix}", value, **fixed, **spread)


def score_rows():
    for model, _, weight, phase in networks():
        for k, (recording, ceiling) in enumerate(RECORDINGS):
            gain = 0.04 * math.sin(7 * weight + phase + k)
            raw = 0.62 - 0.05 * k + gain
            yield row(
                model,
                "predictivity",
                raw**2 / ceiling,
                recording=recording,
                region="IT",
                layer="layer4",
                raw=raw,
                error=0.004 + 0.001 * k,
                ceiling=ceiling,
                n_stimuli=1000,
                n_neuroids=100,
                n_splits=10,
                regression="pls",
                seed=1,
                model_digest=digest(model),
                recording_digest=f"r{k}",
                config_id=f"score-{model}-{k}",
            )


def correlation_rows():
    for i, measure in enumerate(MEASURES):
        for k, (recording, _) in enumerate(RECORDINGS):
            r = 0.75 * math.cos(0.9 * i + 0.4 * k)
            yield row(
                "21 networks",
                "correlation",
                r,
                measure=measure,
                recording=recording,
                low=None,
                high=None,
                abs_r=abs(r),
                r_squared=r**2,
                spearman=0.9 * r,
                within=0.8 * r,
                within_low=max(0.8 * r - 0.25, -1),
                within_high=min(0.8 * r + 0.2, 1),
                partial=0.4 * r,
                partial_low=max(0.4 * r - 0.4, -1),
                partial_high=min(0.4 * r + 0.35, 1),
                partial_p=0.2,
                partial_q=0.5,
                n_partial=21,
                given="objective, each λ and its slope by objective",
                interval="networks within objectives",
                p=0.001 if abs(r) > 0.5 else 0.3,
                q=0.01 if abs(r) > 0.5 else 0.4,
                n_networks=21,
                config_id="correlation",
            )


def transfer_rows():
    for model, _, weight, phase in networks():
        if weight in (0.0, 0.1):
            for k, dataset in enumerate(DATASETS):
                value = 0.9 - 0.06 * k + 0.1 * weight + 0.01 * math.sin(phase)
                yield row(
                    model,
                    "transfer",
                    value,
                    dataset=dataset,
                    sd=0.002 + 0.001 * k,
                    n_runs=5,
                    model_digest=digest(model),
                    plain_digest=True,
                    config_id=f"transfer-{model}-{k}",
                )


def online_rows():
    for model, objective, weight, phase in networks():
        found = {"probe_top1": 0.68 - 0.2 * weight**2 + 0.01 * math.cos(phase)}
        if weight:
            ratio = {"mmcr": 2.0, "barlow": 1.2, "simclr": 3.0}[objective]
            found["effective_weight"] = gradient_share(weight, ratio)
        for metric, value in found.items():
            yield row(
                model,
                metric,
                value,
                objective=objective,
                equivariance_weight=weight,
                backbone="resnet50",
                epochs=100,
                seed=0,
                data_digest="d",
                n_images=1000,
                model_digest=digest(model),
            )


def layer_rows():
    for i, layer in enumerate(("layer1", "layer2", "layer3", "layer4", "best")):
        for k, region in enumerate(("V1", "V2", "V4", "IT")):
            raw = 0.55 - 0.07 * abs(i - k) if i < 4 else 0.53
            yield row(
                "torchvision/resnet50",
                "predictivity",
                raw**2 / 0.7,
                recording=f"area {region}",
                region=region,
                layer=layer,
                raw=raw,
                error=0.01,
                ceiling=0.7,
                n_stimuli=500,
                n_neuroids=80,
                n_splits=10,
                regression="pls",
                seed=1,
                model_digest="digest of torchvision/resnet50",
                recording_digest=region,
                config_id=f"layer-{i}-{k}",
            )


def trained_otherwise():
    """Rows of other backbones, of longer training, and of networks of one's own."""
    scores = list(score_rows())
    for objective, backbone, loss in (
        ("mmcr", "resnet34", 0.06),
        ("barlow", "resnet101", -0.02),
    ):
        for weight in ("0", "0.1", "0.2"):
            name = f"runs/{objective}_l{weight}_{backbone}"
            told = {"objective": objective, "equivariance_weight": float(weight)}
            told |= {"backbone": backbone, "epochs": 100, "seed": 0}
            value = 0.6 - loss - 0.1 * float(weight)
            about = {"config_id": f"train-{name}".replace("/", "-")}
            yield "train", row(name, "probe_top1", value, **told, **about)
            for k, found in enumerate(scores):
                if found["model"] == f"ce_{objective}_l{weight}":
                    raw = found["raw"] - loss
                    again = {"raw": raw, "value": raw**2 / found["ceiling"]}
                    again |= {"config_id": f"score-other-{k}-{backbone}"}
                    who = {"model": name, "model_digest": digest(name)}
                    yield "score", found | again | who
            for k, dataset in enumerate(("cifar10", "my_images.zip")):
                shares = {"dataset": dataset, "sd": 0.004, "n_runs": 5}
                about = {"config_id": f"transfer-{name}-{k}".replace("/", "-")}
                value = 0.8 - 0.2 * k - loss
                yield "transfer", row(name, "transfer", value, **shares, **about)
    for k, found in enumerate(scores):
        if found["model"] == "ce_barlow_l0.2":
            longer = {"model": "ce_barlow_l0.2_ep1000", "config_id": f"longer-{k}"}
            longer["model_digest"] = digest(longer["model"])
            yield "score", found | longer | {"raw": found["raw"] + 0.01}


def overlap_rows():
    names = ("ce_mmcr_l0", "ce_mmcr_l0.5", "pixels")
    for i, first in enumerate(names):
        for k, second in enumerate(names):
            if i >= k:
                continue
            parts = {"shared": 0.3 - 0.05 * k, "unique_a": 0.05 + 0.01 * i}
            parts |= {"unique_b": 0.02 + 0.01 * k, "r2_joint": 0.4 - 0.03 * k}
            parts["difference"] = parts["unique_a"] - parts["unique_b"]
            for name, value in parts.items():
                yield row(
                    first,
                    f"overlap_{name}",
                    value,
                    other=second,
                    recording="set 1",
                    region="IT",
                    layer="layer4",
                    other_layer="layer4",
                    low=round(value - 0.01, 6),
                    high=round(value + 0.01, 6),
                    p=0.09 - 0.08 * (k == 1) if name == "difference" else None,
                    n_stimuli=1000,
                    n_neuroids=100,
                    model_digest=digest(first),
                    other_digest=digest(second),
                    config_id=f"overlap-{i}-{k}",
                )


def all_rows():
    stages = {
        "analyze": analysis_rows(),
        "correlate": correlation_rows(),
        "overlap": overlap_rows(),
        "score": [*score_rows(), *layer_rows()],
        "train": online_rows(),
        "transfer": transfer_rows(),
    }
    return pd.DataFrame(
        [{"stage": stage} | found for stage, rows in stages.items() for found in rows]
    )


def store_arrays(store):
    """Distances of single comparisons, whose means are those of the rows."""
    wave = np.sin(1.7 * np.arange(N_COMPARISONS))
    pairs = np.stack([np.arange(N_COMPARISONS), np.arange(N_COMPARISONS) + 3])
    for model, _, weight, phase in networks():
        arrays = {}
        for name, at_zero, most, _ in SHAPES:
            delta = most * weight / 0.5 * (1 + 0.3 * math.cos(phase))
            axis = "class_pair" if name == "class_class" else "image_pair"
            values = at_zero + 0.2 * wave - delta * (1 + 0.3 * np.roll(wave, 5))
            arrays[name] = (axis, values)
            arrays[f"{name}_pairs"] = ((axis, "member"), pairs.T)
        config_id = f"bures-{model}"
        found = [AnyRow(**row(model, "bures", 0.0, config_id=config_id))]
        store.put("analyze", config_id, Settings(name=model), found, xr.Dataset(arrays))
    for k in range(4):  # of ten splits eight chose the layer of the area
        config_id = f"layer-4-{k}"
        chosen = [f"layer{k + 1}"] * 8 + ["layer2", "layer3"]
        names = xr.Dataset({"layer": ("split", np.array(chosen, dtype=object))})
        found = [AnyRow(**row("any", "predictivity", 0.0, config_id=config_id))]
        store.put("score", config_id, Settings(name=str(k)), found, names)


def histories():
    step = np.arange(0, 400, 20)
    for k, weight in enumerate((0.0, 0.2)):
        for i, objective in enumerate(("mmcr", "barlow")):
            loss = 3 * np.exp(-step / (150 + 60 * i)) + 0.5 + 0.2 * k
            table = pd.DataFrame(
                {
                    "step": step,
                    "loss": loss,
                    "loss_invariant": 0.8 * loss,
                    "loss_equivariant": 1.2 * loss,
                    "learning_rate": 0.1 * np.cos(step / 300),
                    "effective_rank": np.where(
                        step % 100 == 0, 20 + step / (10 + 5 * i), np.nan
                    ),
                    "probe_train_top1": 0.1 + (1 + i) * step / 2000,
                    "knn_top1": np.where(
                        step % 100 == 0, 0.1 + (1 + k) * step / 1500, np.nan
                    ),
                }
            )
            yield f"ce_{objective}_l{weight:g}", table


def other_scores():
    scores = [0.25 + 0.3 * math.sin(0.11 * k) for k in range(60)]
    names = [f"network {k}" for k in range(60)]
    return pd.DataFrame({"model": names, "score": scores})


def other_inputs(store=None):
    """Rows of the published networks and of networks that were trained otherwise."""
    added = [{"stage": stage} | found for stage, found in trained_otherwise()]
    rows = pd.concat([all_rows(), pd.DataFrame(added)], ignore_index=True)
    return Inputs(rows, store, remark=REMARK)


def bins_of(model, recording, region, **columns):
    return [
        row(model, "predictivity", 0.5, stage="score", recording=recording)
        | {"region": region, "raw": 0.1 * k, "error": 0.01, "n_splits": 10}
        | {"regression": "pls", "seed": 1, "model_digest": digest(model)}
        | {"recording_digest": f"{region}{k}", "layer": "layer4", "animal": None}
        | {"time_start": 10.0 * k, "time_end": 10.0 * k + 10, "config_id": f"{k}"}
        | columns
        for k in range(4)
    ]


def time_inputs():
    """Scores of the bins of two networks, and rows that are of no bin."""
    rows = pd.DataFrame(
        [
            *bins_of("a", "set", "IT"),
            *bins_of("b", "set", "IT", objective="mmcr", equivariance_weight=0.1),
            *bins_of("a", "set", "V4"),
            *bins_of("a", "set", "IT", animal="M1", raw=0.9),
            *bins_of("a", "set", "IT", time_start=0.0, time_end=40.0, raw=0.8)[:1],
            *bins_of("a", "still", "IT", time_start=None, time_end=None),
        ]
    ).assign(origin="recorded", source=None)
    return Inputs(rows)


def standing_inputs():
    """A network, its untrained copies and animals, of two recordings; one of none."""
    found = []
    for recording, whole in (("set", None), ("alone", 0.7)):
        parts = [("all", None), *(() if whole else (("A", "A"), ("B", "B")))]
        parts += () if whole else (("mean", "mean"),)
        same = {"stage": "score", "recording": recording, "region": "IT"}
        same |= {"n_splits": 10, "regression": "pls", "seed": 1, "error": 0.01}
        for place, (part, animal) in enumerate(parts):
            of = same | {"recording_digest": f"{recording} {part}", "animal": animal}
            of |= {"ceiling": whole}
            shift = 0.02 * place
            for model, raw in (("runs/a", 0.5), ("runs/b", 0.45), ("pixels", 0.1)):
                layer = {"layer": "pixels" if model == "pixels" else "layer4"}
                told = {"raw": raw + shift, "model_digest": digest(model)}
                found.append(row(model, "predictivity", None, **of, **layer, **told))
            for k in (1, 2) if recording == "set" else (1,):
                name = f"untrained/{k}:runs/a"
                told = {"raw": 0.2 + 0.04 * k + shift, "model_digest": digest(name)}
                found.append(
                    row(name, "predictivity", None, **of, layer="layer4", **told)
                )
            if animal in ("A", "B"):
                name = f"brain/set:{animal}"
                told = {"raw": 0.6 + shift, "model_digest": digest(name), "layer": "IT"}
                own = of | {"animal": None}
                found.append(row(name, "predictivity", None, **own, **told))
    frame = pd.DataFrame(found).assign(origin="recorded", source=None)
    frame = frame.assign(value=frame["raw"] ** 2 / frame["ceiling"])
    return Inputs(frame, remark=REMARK)


def geometry_inputs():
    """Measures of two networks of unknown λ, with every kind of panel."""
    rows = []
    for k, model in enumerate(("torchvision/resnet18", "runs/mine")):
        common = {"layer": "layer4", "images": "some images", "interval": "images"}
        common |= dict.fromkeys(("images_digest", "views_digest"), "d")
        common |= {"n_points": 50, "n_comparisons": 40, "n_units": 20, "seed": 0}
        names = (one.name for m in OF_VIEWS.values() for one in m.quantities)
        for i, name in enumerate(names):
            value = 0.1 * ((3 * i + 4 * k) % 9) - 0.1
            spread = {"low": value - 0.04, "high": value + 0.06}
            rows.append(row(model, name, value, **common, **spread, model_digest=model))
    frame = pd.DataFrame(rows).assign(stage="analyze", origin="files", source=None)
    return Inputs(frame, remark=REMARK)


#: Tables and figures that are of inputs of their own.
OWN_INPUTS = {
    ("figure", "8"): other_inputs,
    ("figure", "geometry"): geometry_inputs,
    ("figure", "scores"): standing_inputs,
    ("figure", "time"): time_inputs,
    ("table", "4"): other_inputs,
}
