"""Differences of distances are from a network that was trained alike at λ = 0."""

from dataclasses import replace

import pytest
from toys import toy_config

from ce_align.results import NetworkFacts
from ce_align.stages.measures import AnalysisConfig, with_baselines

TRAINED = NetworkFacts("barlow", 0.3, "resnet18", 100, "train", "strong", 1)
KNOWN = {
    "runs/b": TRAINED,
    "runs/a": replace(TRAINED, equivariance_weight=0.0, label="invariant"),
    "runs/seed2": replace(TRAINED, network_seed=2),
    "runs/mmcr": replace(TRAINED, objective="mmcr"),
    "runs/long": replace(TRAINED, epochs=200),
}


def baselines(*models, metrics=("bures",), **settings):
    """Baseline of each network, and what is said."""
    configs = [toy_config(metric, model=m) for m in models for metric in metrics]

    def facts(name):
        return KNOWN.get(name, NetworkFacts())

    found, notes = with_baselines(configs, facts=facts, **settings)
    assert [one.fingerprint() for one in configs] == [
        one.model_copy(update={"baseline": None}).fingerprint() for one in found
    ]
    return [one.baseline for one in found], notes


@pytest.mark.parametrize("models", [("runs/a", "runs/b"), ("runs/b", "runs/a")])
def test_the_training_at_zero_among_those_asked_for_is_the_baseline(models):
    found, notes = baselines(*models)
    assert dict(zip(models, found, strict=True)) == {"runs/b": "runs/a", "runs/a": None}
    assert notes == ["ΔD_B of runs/b: from runs/a, at λ = 0"]


def test_a_network_of_another_seed_objective_or_training_has_another_baseline():
    others = ("runs/seed2", "runs/mmcr", "runs/long", "torchvision/resnet18")
    found, notes = baselines("runs/a", *others)
    assert found == [None] * 5
    (note,) = notes
    assert note.startswith("no ΔD_B of runs/seed2, runs/mmcr, runs/long")
    assert "name one with --baseline" in note


def test_networks_of_which_nothing_is_known_are_no_pair():
    assert baselines("x", "y")[0] == [None, None]


def test_a_published_network_has_its_sibling_whether_asked_for_or_not():
    found, notes = baselines("ce_mmcr_l0.3")
    assert found == ["ce_mmcr_l0"]
    assert notes == ["ΔD_B of ce_mmcr_l0.3: from ce_mmcr_l0, at λ = 0"]


@pytest.mark.parametrize(
    ("baseline", "expected"),
    [("none", [None, None]), ("x", ["x", "x"]), ("runs/b", [None, "runs/b"])],
)
def test_a_baseline_that_is_named_is_that_of_all_others(baseline, expected):
    assert baselines("runs/b", "runs/a", baseline=baseline)[0] == expected


def test_a_baseline_is_spelled_as_networks_are():
    asked = [
        AnalysisConfig(metric="bures", model=f"./runs/{m}/", images="x") for m in "ab"
    ]
    found, _ = with_baselines(asked, "./runs//a/")
    assert [(one.model, one.baseline) for one in found] == [
        *(("runs/a", None), ("runs/b", "runs/a"))
    ]


def test_a_baseline_without_numbers_of_its_own_is_said_to_have_none():
    _, (note,) = baselines("runs/b", baseline="x")
    assert note.startswith("x is the baseline only; ") and "--model x" in note
    assert baselines("runs/b", baseline="x", metrics=["decoding"]) == ([None], [])


def test_measures_that_compare_nothing_have_no_baseline():
    found, notes = baselines("runs/a", "runs/b", metrics=("decoding", "bures"))
    assert found == [None, None, None, "runs/a"]
    assert len(notes) == 1
    assert baselines("runs/seed2", metrics=["decoding"]) == ([None], [])


def test_none_in_a_configuration_is_no_network():
    assert toy_config(baseline="none") == toy_config()
