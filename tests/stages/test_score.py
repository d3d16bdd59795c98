"""From a network and a recording to a score."""

import importlib.util

import numpy as np
import pytest
import torch

from ce_align.data.imagesets import ImageSet
from ce_align.data.importing import import_recording
from ce_align.data.populations import Population, planted_recording
from ce_align.data.recordings import Recording
from ce_align.errors import ConfigError, DataError
from ce_align.models import features
from ce_align.models.networks import Network
from ce_align.models.preprocessing import Preprocessing
from ce_align.results import ResultStore
from ce_align.stages.score import ScoreConfig, score

#: Of the toy network: 6 filters at 2 × 2 places.
N_FEATURES = 24


def make_network(seed=0, width=6):
    torch.manual_seed(seed)
    module = torch.nn.Sequential(
        torch.nn.Conv2d(3, width, 8, stride=8), torch.nn.ReLU(), torch.nn.Flatten()
    )
    return Network("toy", module, Preprocessing(input_size=16), {"IT": "1"})


@pytest.fixture
def images(rng):
    return ImageSet.from_array("noise", rng.integers(0, 255, (300, 16, 16, 3), "u1"))


def configs_for(*layers, **settings):
    return [
        ScoreConfig(
            model="toy", recording="toy", layer=layer, components=12, **settings
        )
        for layer in layers
    ]


def planted(images, explainable_fraction):
    values = features.extract(make_network(), images, ["1"])["1"].values
    population = Population(
        n_neuroids=30,
        n_repetitions=30,
        explainable_fraction=explainable_fraction,
        mean_count=20,
        seed=1,
    )
    return planted_recording(values.astype(float), population, images=images)


@pytest.mark.parametrize("fraction", [0.0, 0.4, 0.9])
def test_the_explainable_fraction_is_recovered(images, tmp_path, fraction):
    simulated = planted(images, fraction)
    config = configs_for("1", regression="ridge")
    (row,) = score(
        make_network(), simulated.recording, config, ResultStore(tmp_path)
    ).rows
    # Least squares with p features fitted to n stimuli adds (1 − R²) p / n of variance
    # to the prediction, which lowers the held-out correlation.
    explained = fraction * row.ceiling
    spurious = (1 - explained) * N_FEATURES / (0.9 * row.n_stimuli)
    expected = explained / np.sqrt(explained + spurious)
    assert abs(row.raw - expected) < 3 * row.error
    assert row.value == pytest.approx(row.raw**2 / row.ceiling)
    assert row.ceiling == pytest.approx(np.median(simulated.truth.ceilings), abs=0.02)


def test_layers_of_one_call_share_one_pass(images, tmp_path, monkeypatch):
    recording = planted(images, 0.5).recording
    passes = []
    extract = features.extract

    def counted(network, shown, layers, **options):
        passes.append(tuple(layers))
        return extract(network, shown, layers, **options)

    monkeypatch.setattr(features, "extract", counted)
    store = ResultStore(tmp_path)
    outcome = score(make_network(), recording, configs_for("0", "1", "2"), store)
    assert passes == [("0", "1", "2")]
    assert [row.layer for row in outcome.rows] == ["0", "1", "2"]
    again = score(make_network(), recording, configs_for("2", "1"), store)
    assert len(passes) == 1
    assert again.n_stored == 2
    assert again.rows == outcome.rows[:0:-1]


@pytest.mark.parametrize(
    "changes",
    [
        {"regression": "ridge"},
        {"regression": "ridge", "alpha": 1.0},
        {"pls_mode": "exact"},
        {"gram_dtype": "float32"},
        {"splits": 5},
        {"seed": 2},
    ],
)
def test_other_settings_are_other_results(images, tmp_path, changes):
    recording, store = planted(images, 0.5).recording, ResultStore(tmp_path)
    (first,) = score(make_network(), recording, configs_for("1"), store).rows
    (other,) = score(make_network(), recording, configs_for("1", **changes), store).rows
    assert first.config_id != other.config_id
    assert other != first
    assert len(store.load("score")) == 2


def test_regressions_carry_their_variant_in_the_row():
    (plain,) = configs_for("1")
    (exact,) = configs_for("1", pls_mode="exact")
    (chosen,) = configs_for("1", regression="ridge")
    (fixed,) = configs_for("1", regression="ridge", alpha=1.0)
    names = [config.regression_name for config in (plain, exact, chosen, fixed)]
    assert names == ["pls", "pls_exact", "ridge", "ridge_alpha1"]


def test_refusals_come_before_features(images, tmp_path, monkeypatch):
    def unexpected(*args, **options):
        raise AssertionError("features were computed first")

    monkeypatch.setattr(features, "extract", unexpected)
    responses = np.random.default_rng(0).poisson(5.0, (300, 2, 3)).astype(float)
    responses[4, :, 1] = np.nan
    recording = Recording("toy", images, responses, ("a", "b", "c"), "IT")
    with pytest.raises(DataError, match="lacks 1 averages"):
        score(make_network(), recording, configs_for("1"), ResultStore(tmp_path))
    with pytest.raises(ConfigError, match="no column 'object_name'"):
        score(
            make_network(),
            planted_noise(images),
            configs_for("1", stratify="object_name"),
            ResultStore(tmp_path),
        )


def planted_noise(images):
    responses = np.random.default_rng(0).poisson(5.0, (300, 2, 3)).astype(float)
    return Recording("toy", images, responses, ("a", "b", "c"), "IT")


def load_mobilenet(folder, *, trained):
    """The trained network at the images' own size, or an untrained copy."""
    path = folder / "mobilenet_v2" / "load_mobilenet_v2.py"
    spec = importlib.util.spec_from_file_location("load_mobilenet_v2", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    network = module.build()
    if not trained:
        torch.manual_seed(0)
        for part in network.modules():
            if isinstance(part, module.Conv):
                torch.nn.init.kaiming_normal_(part.weight, nonlinearity="relu")
                torch.nn.init.zeros_(part.bias)
    preprocessing = Preprocessing(input_size=112, mean=(0.5,) * 3, std=(0.5,) * 3)
    return Network("mobilenet_v2", network, preprocessing, {"V4": "block10"})


@pytest.mark.real
@pytest.mark.slow
def test_trained_predicts_macaque_v4_better_than_untrained_and_shuffled(
    real_data, tmp_path
):
    folder = real_data / "macaque_v4"
    store = ResultStore(tmp_path)

    def raw(network, order="natural"):
        recording = import_recording(
            folder / "responses_raw_210325.npy",
            folder / "images_210325.zip",
            axes=("neuroid", "stimulus", "repetition"),
            region="V4",
            identifier="v4",
            order=order,
        )
        config = ScoreConfig(model="mobilenet_v2", recording="v4", layer="block10")
        (row,) = score(network, recording, [config], store).rows
        return row.raw

    trained = load_mobilenet(real_data, trained=True)
    numbers = np.random.default_rng(0).permutation(640) + 1
    listed = tmp_path / "shuffled.csv"
    listed.write_text("file\n" + "\n".join(f"image{n:04d}.jpg" for n in numbers))
    trained_raw = raw(trained)
    assert trained_raw > 0.45
    assert raw(load_mobilenet(real_data, trained=False)) < trained_raw - 0.1
    assert abs(raw(trained, order=str(listed))) < 0.05
