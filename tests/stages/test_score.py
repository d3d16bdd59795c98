"""From a network and a recording to a score."""

import importlib.util
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from planted import ceilings, planted_recording

from ce_align.data.imagesets import ImageSet
from ce_align.data.importers import ImportSettings, import_recording
from ce_align.data.presentations import Presentations
from ce_align.data.recordings import Recording
from ce_align.data.simulation import Population, standardised
from ce_align.errors import ConfigError, DataError
from ce_align.metrics.ceiling import split_half_ceiling
from ce_align.metrics.predictivity import brainscore_splits, cross_validated_r
from ce_align.models import features
from ce_align.models.networks import Network
from ce_align.models.preprocessing import Preprocessing
from ce_align.results import ResultStore
from ce_align.runner import run
from ce_align.stages import score as stage
from ce_align.stages.running import Run
from ce_align.stages.scores import ScoreConfig
from ce_align.stages.similarities import SimilarityConfig

pytestmark = pytest.mark.slow

#: Of the toy network: 6 filters at 2 × 2 places.
N_FEATURES = 24


def make_network(seed=0, width=6):
    torch.manual_seed(seed)
    module = torch.nn.Sequential(
        torch.nn.Conv2d(3, width, 8, stride=8), torch.nn.ReLU(), torch.nn.Flatten()
    )
    return Network("toy", module, Preprocessing(input_size=16), {"IT": "1"})


def score(network, recording, configs, store, **settings):
    """Outcome of one call of the stage."""
    run = Run(store, **settings)
    run.outcome.rows += stage.score(network, dict.fromkeys(configs, recording), run)
    return run.outcome


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
    assert row.ceiling == pytest.approx(np.median(ceilings(simulated.truth)), abs=0.02)


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


def noise_like(images, seed, n_repetitions=2, n_neuroids=3):
    shape = (len(images), n_repetitions, n_neuroids)
    responses = np.random.default_rng(seed).normal(size=shape)
    names = tuple(f"n{i}" for i in range(n_neuroids))
    return Recording("toy", images, responses, names, "IT")


def test_a_ceiling_that_is_not_positive_leaves_the_raw_number_and_says_why(
    images, tmp_path
):
    seen = set()
    for seed in range(6):
        store = ResultStore(tmp_path / str(seed))
        recording = noise_like(images, seed)
        (row,) = score(make_network(), recording, configs_for("1"), store).rows
        seen.add(row.ceiling > 0)
        assert np.isfinite(row.raw)
        if row.ceiling > 0:
            assert row.value == pytest.approx(row.raw**2 / row.ceiling)
            assert "the ceiling is not told from chance (p = 0." in row.note
        else:
            assert row.value is None
            assert row.note.startswith(f"no score: the ceiling is {row.ceiling:.3g}")
    assert seen == {True, False}


def test_a_score_above_one_is_marked(images, tmp_path):
    values = features.extract(make_network(), images, ["1"])["1"].values.astype(float)
    marked = set()
    for seed in range(6):
        rng = np.random.default_rng(seed)
        signal = values @ rng.normal(size=(N_FEATURES, 3))
        noise = rng.normal(size=(300, 2, 3)) * signal.std(axis=0)
        recording = Recording(
            "toy", images, signal[:, None] + noise, ("a", "b", "c"), "IT"
        )
        config = configs_for("1", regression="ridge", alpha=1e-3)
        store = ResultStore(tmp_path / str(seed))
        (row,) = score(make_network(), recording, config, store).rows
        marked.add(row.value > 1)
        assert ("is above 1" in (row.note or "")) == (row.value > 1)
        assert "chance" not in (row.note or "")
    assert marked == {True, False}


def test_the_square_of_a_negative_correlation_is_marked(images, tmp_path):
    seen = set()
    for seed in range(6):
        recording = noise_like(images, seed)
        steady = np.random.default_rng(seed).normal(size=(300, 1, 3))
        repeated = replace(recording, responses=steady + 0.1 * recording.responses)
        store = ResultStore(tmp_path / str(seed))
        (row,) = score(make_network(), repeated, configs_for("1"), store).rows
        seen.add(row.raw < 0)
        assert row.value == pytest.approx(row.raw**2 / row.ceiling)
        assert ("raw r is negative" in (row.note or "")) == (row.raw < 0)
    assert seen == {True, False}


def test_a_ceiling_that_is_not_finite_is_none(tmp_path, rng):
    """Two stimuli whose repetitions say the opposite: r = -1, 2 r / (1 + r) = -∞."""
    pixels = rng.integers(0, 255, (40, 16, 16, 3)).astype(np.uint8)
    responses = np.full((40, 2, 1), np.nan)
    responses[:, 0, 0] = rng.normal(size=40)
    responses[:2, :, 0] = [[0, 2], [2, 0]]
    assert split_half_ceiling(responses).value == -np.inf
    images = ImageSet.from_array("few", pixels)
    recording = Recording("few", images, responses, ("a",), "IT")
    config = configs_for("1", ceiling="split-half", regression="ridge")
    (row,) = score(make_network(), recording, config, ResultStore(tmp_path)).rows
    assert (row.value, row.ceiling) == (None, None)
    few, note = row.note.split("; ")
    assert note == "no score: the ceiling is not finite"
    assert few == "few stimuli: r of a split is over 4 to test"


def test_without_repetitions_the_row_says_that_there_is_no_score(images, tmp_path):
    recording = noise_like(images, 0, n_repetitions=1)
    store = ResultStore(tmp_path)
    (row,) = score(make_network(), recording, configs_for("1"), store).rows
    assert (row.value, row.ceiling, row.ceiling_kind) == (None, None, None)
    assert row.note == "no score: no repetitions, hence no ceiling"


def test_rows_carry_the_stimuli_and_the_estimator_behind_the_ceiling(images, tmp_path):
    """Fifty images were shown ten times, the others once; the truth is predicted."""
    values = features.extract(make_network(), images, ["1"])["1"].values.astype(float)
    rng = np.random.default_rng(2)
    signal = values @ rng.normal(size=(N_FEATURES, 40))
    noise = rng.normal(size=(300, 10, 40)) * 1.5 * signal.std(axis=0)
    responses = signal[:, None] + noise
    responses[50:, 1:] = np.nan
    names = tuple(f"n{i}" for i in range(40))
    recording = Recording("toy", images, responses, names, "IT")
    rows = {
        kind: score(
            make_network(),
            recording,
            configs_for("1", regression="ridge", ceiling=kind),
            ResultStore(tmp_path),
        ).rows[0]
        for kind in ("auto", "split-half")
    }
    default, halves = rows["auto"], rows["split-half"]
    assert (default.ceiling_kind, default.n_ceiling_stimuli) == ("variance", 50)
    assert (halves.ceiling_kind, halves.n_ceiling_stimuli) == ("split-half", 50)
    assert default.raw == halves.raw
    # Reliabilities of averages: 1 / (1 + 2.25 · (5/6 + 1/60)) and 1 / (1 + .225).
    assert default.ceiling == pytest.approx(1 / (1 + 2.25 * 0.85), abs=0.05)
    assert halves.ceiling == pytest.approx(1 / 1.225, abs=0.05)
    # Fitting 24 features to noise costs the prediction some of the truth.
    spurious = (1 - default.ceiling) * N_FEATURES / 270
    expected = default.ceiling / (default.ceiling + spurious)
    assert default.value == pytest.approx(expected, abs=0.08)
    assert halves.value < 0.5
    assert "--ceiling variance gives a ceiling of" in halves.note
    assert default.config_id != halves.config_id


def test_notes_of_the_recording_are_notes_of_its_rows(images, tmp_path):
    recording = noise_like(images, 0)
    told = replace(recording, notes=("1 of 4 neuroids are silent and left out: x",))
    store = ResultStore(tmp_path)
    (row,) = score(make_network(), told, configs_for("1"), store).rows
    assert row.note.split("; ")[0] == told.notes[0]


def test_equal_images_are_never_scored_as_different_stimuli(images, tmp_path):
    recording = noise_like(images, 0)
    pixels = np.stack([np.asarray(images.load(i)) for i in range(300)])
    pixels[7] = pixels[2]
    copied = replace(recording, images=ImageSet.from_array("noise", pixels))
    with pytest.raises(DataError, match="1 stimuli of toy show the image of another"):
        score(make_network(), copied, configs_for("1"), ResultStore(tmp_path))


def test_trials_given_as_rows_tell_the_network_nothing(tmp_path):
    """Each image is shown in five rows; nothing but the image predicts a response."""
    rng = np.random.default_rng(8)
    folder = tmp_path / "images"
    folder.mkdir()
    for k in range(120):
        pixels = rng.integers(0, 255, (16, 16, 3)).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"{k}.png")
    of_row = rng.permutation(np.repeat(np.arange(120), 5))
    trials = rng.normal(size=(120, 6))[of_row] + 0.2 * rng.normal(size=(600, 6))
    np.save(tmp_path / "trials.npy", trials)
    (tmp_path / "order.csv").write_text(
        "trial,file\n" + "".join(f"{i},{k}.png\n" for i, k in enumerate(of_row))
    )
    settings = ImportSettings(
        file=str(tmp_path / "trials.npy"),
        images=str(folder),
        axes="stimulus,neuroid",
        region="IT",
        order=str(tmp_path / "order.csv"),
    )
    recording = import_recording(settings, "toy")
    assert recording.responses.shape == (120, 5, 6)
    config = configs_for("1", regression="ridge")
    (row,) = score(make_network(), recording, config, ResultStore(tmp_path)).rows
    assert row.raw < 0.3
    assert row.ceiling > 0.9
    # With its trials apart, the same network would predict them.
    values = features.extract(make_network(width=60), recording.images, ["1"])["1"]
    place = {name: i for i, name in enumerate(recording.images.ids)}
    rows = [place[str(k)] for k in of_row]
    r = cross_validated_r(
        values.values[rows], trials, brainscore_splits(600), n_components=100
    )
    assert np.median(r) > 0.6


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
def test_trained_predicts_macaque_v4_better_than_untrained_and_shuffled(
    real_data, tmp_path
):
    folder = real_data / "macaque_v4"
    store = ResultStore(tmp_path)

    def raw(network, order="natural"):
        settings = ImportSettings(
            file=str(folder / "responses_raw_210325.npy"),
            images=str(folder / "images_210325.zip"),
            axes="neuroid,stimulus,repetition",
            region="V4",
            order=order,
        )
        recording = import_recording(settings, "v4")
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
    # Without a fit it is like V4, too, far from the floor and below the ceiling.
    recording = import_recording(
        ImportSettings(
            file=str(folder / "responses_raw_210325.npy"),
            images=str(folder / "images_210325.zip"),
            axes="neuroid,stimulus,repetition",
            region="V4",
        ),
        "v4",
    )
    given = {("network", "mobilenet_v2"): trained, ("recording", "v4"): recording}
    fixed = {"model": "mobilenet_v2", "recording": "v4", "layer": "block10"}
    asked = [SimilarityConfig(metric=m, **fixed) for m in ("rsa", "cka")]
    for row in run(asked, store, given=given).rows:
        assert row.floor < row.low < row.value < row.high < row.ceiling_high


def make_monkeys(images, *, split=False, bins=0, regions=("IT",), seed=0):
    """Neuroids of two animals, of which F follows the features and N is noise."""
    rng = np.random.default_rng(seed)
    n_stimuli, n_neuroids = len(images), 8 * len(regions)
    features_of = features.extract(make_network(), images, ["1"])["1"].values
    weights = rng.normal(size=(features_of.shape[1], n_neuroids))
    drive = standardised(features_of.astype(float) @ weights)
    animal = np.tile(np.repeat(["F", "N"], 4), len(regions))
    noise = animal == "N"
    drive[:, noise] = rng.normal(size=(n_stimuli, int(noise.sum())))
    shape = (n_stimuli, 4, n_neuroids)
    responses = drive[:, None] + 0.3 * rng.normal(size=shape)
    settings = {
        "neuroids": {
            "animal": animal,
            "region": np.repeat(regions, 8),
            "reliability": np.linspace(0.1, 0.9, n_neuroids),
        }
    }
    if split:
        settings["split"] = np.where(np.arange(n_stimuli) % 4, "train", "test")
    if bins:
        stimulus, repetition = np.divmod(np.arange(n_stimuli * 4), 4)
        rows = responses.reshape(-1, n_neuroids)[:, :, None]
        later = rng.normal(size=(len(rows), n_neuroids, bins - 1))
        values = np.concatenate([rows, later], axis=2)
        responses = Presentations(values, stimulus, repetition)
        starts = np.arange(bins) * 10.0
        settings["time_bins"] = np.stack([starts, starts + 10], axis=1)
    names = tuple(f"{name}/{i}" for i, name in enumerate(animal))
    return Recording("monkeys", images, responses, names, **settings)


def scored(recording, tmp_path, layer="1", **settings):
    """Rows of a run of the whole stage."""
    config = ScoreConfig(
        model="toy", recording="monkeys", layer=layer, regression="ridge", **settings
    )
    run = Run(
        ResultStore(tmp_path),
        given={
            ("network", "toy"): make_network(),
            ("recording", "monkeys"): recording,
        },
    )
    stage.execute([config], run)
    assert not run.outcome.failures
    return run.outcome


@pytest.fixture
def few(images):
    return images.select(range(80))


def test_animals_are_scored_from_the_same_predictions(few, tmp_path):
    recording = make_monkeys(few)
    outcome = scored(recording, tmp_path)
    whole, f, n, mean = outcome.rows
    assert [row.animal for row in outcome.rows] == [None, "F", "N", "mean"]
    (arrays,) = outcome.arrays.values()
    r = arrays["r"].values
    assert whole.raw == pytest.approx(np.median(r, axis=1).mean(), abs=1e-15)
    assert f.raw == pytest.approx(np.median(r[:, :4], axis=1).mean(), abs=1e-15)
    assert f.raw > 0.8 and abs(n.raw) < 0.3
    assert f.n_neuroids == n.n_neuroids == 4
    assert mean.raw == pytest.approx((f.raw + n.raw) / 2)
    assert mean.error == pytest.approx(abs(f.raw - n.raw) / 2)
    alone = scored(recording.select(animal="F"), tmp_path).rows
    assert len(alone) == 1
    assert alone[0].ceiling == pytest.approx(f.ceiling, abs=1e-12)


def test_one_animal_is_asked_for_by_its_name(few, tmp_path):
    recording = make_monkeys(few)
    (row,) = scored(recording, tmp_path, animal="F").rows
    (same,) = scored(recording.select(animal="F"), tmp_path).rows
    assert row.config_id == same.config_id and row.raw == same.raw


def test_each_region_is_scored_by_itself(few, tmp_path):
    recording = make_monkeys(few, regions=("V4", "IT"))
    rows = scored(recording, tmp_path).rows
    assert [row.region for row in rows] == ["V4"] * 4 + ["IT"] * 4
    (only, *_) = scored(recording, tmp_path, region="IT").rows
    assert only.config_id == rows[4].config_id


def test_a_fixed_split_trains_and_tests_as_it_says(few, tmp_path):
    recording = make_monkeys(few, split=True)
    whole = scored(recording, tmp_path).rows[0]
    values = features.extract(make_network(), few, ["1"])["1"].values
    parts = [np.flatnonzero(recording.split == name) for name in ("train", "test")]
    r = cross_validated_r(values, recording.averaged(), [parts], regression="ridge")
    assert whole.raw == pytest.approx(np.median(r), abs=1e-12)
    assert whole.error is None and whole.n_splits == 1
    test = split_half_ceiling(recording.responses[parts[1]])
    assert whole.ceiling == pytest.approx(test.value, abs=1e-12)
    assert "own split: 60 stimuli to train, 20 to test" in whole.note


def test_one_split_has_no_error(few, tmp_path):
    one, two = (scored(make_monkeys(few), tmp_path, splits=n).rows[0] for n in (1, 2))
    assert one.error is None and two.error > 0


def test_stated_reliability_is_a_ceiling_without_repetitions(few, tmp_path):
    recording = make_monkeys(few)
    once = replace(recording, responses=recording.averaged()[:, None])
    row = scored(once, tmp_path).rows[0]
    assert row.ceiling_kind == "stated" and row.ceiling == pytest.approx(0.5)
    asked = scored(recording, tmp_path, ceiling="stated").rows[0]
    assert asked.ceiling == row.ceiling
    reliable = scored(once, tmp_path, reliability=0.5).rows[0]
    assert reliable.n_neuroids == 4
    assert "stated reliability above 0.5" in reliable.note


def test_each_time_bin_has_the_score_it_has_alone(few, tmp_path):
    recording = make_monkeys(few, bins=3)
    rows = scored(recording, tmp_path, time="all", animal="F").rows
    assert [(row.time_start, row.time_end) for row in rows] == [
        *((0, 10), (10, 20), (20, 30))
    ]
    assert rows[0].raw > 0.8 and max(abs(rows[1].raw), abs(rows[2].raw)) < 0.3
    first = recording.select(time=0, animal="F")
    (alone,) = scored(first, tmp_path / "other").rows
    assert alone.raw == pytest.approx(rows[0].raw, rel=1e-12)
    (window,) = scored(recording, tmp_path, time="10:30", animal="F").rows
    assert (window.time_start, window.time_end) == (10, 30)


def test_bins_of_equal_responses_keep_their_own_times(few, tmp_path):
    recording = make_monkeys(few, bins=3)
    values = recording.responses.values.copy()
    values[:, :, 1] = values[:, :, 0]
    shown = replace(recording.responses, values=values)
    equal = replace(recording, responses=shown)
    rows = scored(equal, tmp_path, time="all", animal="F").rows
    assert [row.time_start for row in rows] == [0, 10, 20]
    assert rows[0].raw == rows[1].raw and rows[0].config_id != rows[1].config_id


@pytest.mark.parametrize(
    ("time", "expected"),
    [
        (None, "has 3 time bins from 0 to 30 ms; give --time all"),
        ("3", "has no time bin 3: it has bins 0 to 2"),
        ("40:50", "has no time bin 40:50: it has bins from 0 to 30 ms"),
        ("soon", "--time must be all"),
    ],
)
def test_a_time_that_is_not_there_is_said(few, tmp_path, time, expected):
    config = ScoreConfig(model="toy", recording="monkeys", layer="1", time=time)
    given = {
        ("network", "toy"): make_network(),
        ("recording", "monkeys"): make_monkeys(few, bins=3),
    }
    run = Run(ResultStore(tmp_path), given=given)
    stage.execute([config], run)
    ((_, error),) = run.outcome.failures
    assert expected in str(error)


def test_neuroids_are_listed_in_a_file(few, tmp_path):
    recording = make_monkeys(few)
    listed = tmp_path / "ids.txt"
    listed.write_text("F/1\n\nF/3\n")
    (row,) = scored(recording, tmp_path, neuroids=str(listed)).rows
    assert row.n_neuroids == 2
    listed.write_text("F/1\nF/2\n")
    (other,) = scored(recording, tmp_path, neuroids=str(listed)).rows
    assert other.config_id != row.config_id
