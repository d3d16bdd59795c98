"""Scores equal Brain-Score's own benchmark object on the same features."""

import uuid

import numpy as np
import pytest
from standins import FixedFeatures, latents

from ce_align.data.imagesets import ImageSet
from ce_align.data.recordings import Recording
from ce_align.metrics.ceiling import split_half_ceiling
from ce_align.metrics.predictivity import (
    brainscore_splits,
    cross_validated_r,
    normalised_score,
    summarise,
)

pytestmark = [pytest.mark.brainscore, pytest.mark.slow]


def official_benchmark(assembly, stratify, degrees=8):
    """Brain-Score's benchmark as its data modules build those of IT."""
    from brainscore_vision import load_ceiling, load_metric
    from brainscore_vision.benchmark_helpers.neural_common import (
        NeuralBenchmark,
        average_repetition,
    )

    if "time_bin" in assembly.dims:
        assembly = assembly.squeeze("time_bin")
    assembly = assembly.sel(region="IT")
    assembly["region"] = "neuroid", ["IT"] * len(assembly["neuroid"])
    ceiler = load_ceiling("internal_consistency")
    settings = {"crossvalidation_kwargs": {"stratification_coord": stratify}}
    return NeuralBenchmark(
        # Its ceiling is cached by this name alone.
        identifier=f"stand-in.IT-pls-{uuid.uuid4().hex}",
        version=1,
        assembly=average_repetition(assembly),
        similarity_metric=load_metric("pls", **settings),
        visual_degrees=degrees,
        number_of_trials=1,
        ceiling_func=lambda: ceiler(assembly),
        parent="IT",
        bibtex="",
    )


def our_scores(features, recording):
    splits = brainscore_splits(len(features), stratify=recording.strata())
    r = cross_validated_r(features, recording.averaged(), splits)
    raw, error = summarise(r)
    ceiling = split_half_ceiling(recording.responses).value
    return {
        "score": normalised_score(raw, ceiling),
        "raw": raw,
        "error": error,
        "ceiling": ceiling,
    }, r


def check_equal(assembly, recording, features, rng, tolerance=1e-6):
    """Ours on `features` (rows as in the recording) against Brain-Score's object."""
    benchmark = official_benchmark(assembly, recording.stratify)
    theirs = benchmark(FixedFeatures(recording.images.ids, features, rng))
    ours, r = our_scores(features, recording)
    expected = {
        "score": theirs.item(),
        "raw": theirs.raw.item(),
        "error": theirs.attrs["error"].item(),
        "ceiling": theirs.ceiling.item(),
    }
    assert ours == pytest.approx(expected, abs=tolerance, rel=0)
    per_neuroid = theirs.raw.raw.sortby("neuroid_id").transpose("split", "neuroid")
    order = np.argsort(recording.neuroid_ids)
    np.testing.assert_allclose(r[:, order], per_neuroid.values, atol=tolerance, rtol=0)
    return ours


def features_of(recording, stimuli, rng, n_features=60):
    """Features that share the latents of the responses, in the recording's order."""
    rows = stimuli.set_index("stimulus_id", drop=False).loc[list(recording.images.ids)]
    shared = latents(rows) @ rng.normal(size=(6, n_features))
    return shared + 2 * rng.normal(size=(len(rows), n_features))


@pytest.mark.parametrize(("stratify", "n_features"), [("object_name", 60), (None, 400)])
def test_score_raw_error_and_ceiling_equal_brainscores(
    stand_in, rng, stratify, n_features
):
    from ce_align.brainscore.assemblies import recording_from_assembly

    assembly = stand_in(n_stimuli=120)
    recording = recording_from_assembly(
        assembly, identifier="s", region="IT", degrees=8.0, stratify=stratify
    )
    features = features_of(recording, assembly.stimulus_set, rng, n_features)
    ours = check_equal(assembly, recording, features, rng)
    # The stand-in is neither noise nor free of noise, else equality means little.
    assert 0.2 < ours["raw"] < 0.98
    assert 0.5 < ours["ceiling"] < 0.99


def test_single_precision_responses_score_the_same(stand_in, rng):
    """Brain-Score averages float32 assemblies in float32; scores agree all the same."""
    from ce_align.brainscore.assemblies import recording_from_assembly

    assembly = stand_in(n_stimuli=80)
    attributes = assembly.attrs
    assembly = type(assembly)(assembly.astype(np.float32))
    assembly.attrs.update(attributes)
    assert assembly.dtype == np.float32
    recording = recording_from_assembly(
        assembly, identifier="s", region="IT", degrees=8.0, stratify=None
    )
    features = features_of(recording, assembly.stimulus_set, rng)
    check_equal(assembly, recording, features, rng)


def test_recording_of_arrays_scores_the_same_through_brainscore(rng, tmp_path):
    """The way out: our recording, in an order of its own, in Brain-Score's object."""
    from ce_align.brainscore.assemblies import assembly_from_recording

    n, n_repetitions, n_neuroids = 90, 5, 4
    causes = rng.normal(size=(n, 6))
    signal = causes @ rng.normal(size=(6, n_neuroids))
    noise = rng.normal(size=(n, n_repetitions, n_neuroids))
    pixels = rng.integers(256, size=(n, 4, 4, 3)).astype(np.uint8)
    ids = [f"image {i}" for i in rng.permutation(n)]
    objects = {"object_name": np.array(["car", "bear", "face"])[np.arange(n) % 3]}
    recording = Recording(
        "arrays",
        ImageSet.from_array("arrays", pixels, ids, objects),
        signal[:, None] + 2 * noise,
        tuple(f"n{i}" for i in range(n_neuroids)),
        "IT",
        stratify="object_name",
    )
    features = causes @ rng.normal(size=(6, 50)) + rng.normal(size=(n, 50))
    assembly = assembly_from_recording(recording, False, tmp_path)
    check_equal(assembly, recording, features, rng)


def test_network_on_a_screen_scores_the_same_from_pixels_to_score(
    rng, tmp_path, monkeypatch
):
    """Brain-Score's whole path: screen, preprocessing, layer, metric, ceiling."""
    import torch
    from brainscore_vision.benchmark_helpers import screen

    from ce_align.brainscore.assemblies import assembly_from_recording
    from ce_align.brainscore.models import brain_model
    from ce_align.models.networks import Network
    from ce_align.models.preprocessing import Preprocessing

    monkeypatch.setattr(screen, "root_path", tmp_path / "screens")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    torch.manual_seed(0)
    layers = torch.nn.Sequential(torch.nn.Conv2d(3, 6, 5, stride=4), torch.nn.ReLU())
    network = Network("net", layers, Preprocessing(input_size=24), {"IT": "1"})
    pixels = rng.integers(256, size=(90, 20, 20, 3)).astype(np.uint8)
    images = ImageSet.from_array("patches", pixels)
    shown = images.on_screen(5, 8)
    inputs = np.stack([network.preprocessing.resize(shown.load(i)) for i in range(90)])
    with torch.no_grad():
        output = layers(network.preprocessing.normalise(torch.from_numpy(inputs)))
    features = output.flatten(1).double().numpy()
    signal = features @ rng.normal(size=(features.shape[1], 4))
    noise = rng.normal(size=(90, 6, 4)) * signal.std()
    names = ("a", "b", "c", "d")
    recording = Recording(
        "patches", images, signal[:, None] + noise, names, "IT", degrees=5.0
    )
    assembly = assembly_from_recording(recording, False, tmp_path / "images")
    theirs = official_benchmark(assembly, None, degrees=5)(brain_model(network))
    ours, _ = our_scores(features, recording)
    assert ours["score"] == pytest.approx(theirs.item(), abs=1e-6, rel=0)
    assert ours["raw"] == pytest.approx(theirs.raw.item(), abs=1e-6, rel=0)
    assert ours["raw"] > 0.3


@pytest.mark.real
def test_macaque_v4_scores_the_same_through_brainscore(real_data, rng, tmp_path):
    from ce_align.brainscore.assemblies import assembly_from_recording

    folder = real_data / "macaque_v4"
    images = ImageSet.from_path(folder / "images_210325.zip", identifier="v4")
    responses = np.load(folder / "responses_raw_210325.npy")[::4].transpose(1, 2, 0)
    names = tuple(f"n{i}" for i in range(responses.shape[2]))
    # Called IT, since the benchmark helper of this file selects IT.
    recording = Recording("v4", images, responses.astype(float), names, "IT")
    thumbnails = [images.load(i).resize((16, 16)) for i in range(len(images))]
    features = np.stack([np.asarray(t, float).ravel() / 255 for t in thumbnails])
    assembly = assembly_from_recording(recording, False, tmp_path)
    ours = check_equal(assembly, recording, features, rng)
    assert 0.1 < ours["raw"] < 0.3
