"""The face: names or objects in, rows out, the same as by configurations."""

import ast
import dataclasses
import importlib
import inspect
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import ce_align as ce
from ce_align.errors import ConfigError, DataError
from ce_align.stages.running import Outcome

pytestmark = pytest.mark.slow


@pytest.fixture
def stimuli(rng):
    coarse = rng.integers(0, 256, (60, 4, 4, 3), np.uint8)
    return coarse.repeat(4, axis=1).repeat(4, axis=2)


@pytest.fixture
def recording(rng, stimuli):
    signal = stimuli[:, ::4, ::4].reshape(60, -1) / 255.0 @ rng.normal(size=(48, 5))
    responses = signal[:, None] + 0.5 * rng.normal(size=(60, 6, 5))
    return ce.make_recording(responses, stimuli, "IT", name="toy", origin="simulated")


def test_what_is_at_hand_is_shown_in_a_line(recording, module):
    network = ce.load_network(module, name="mine", layers={"IT": "1"})
    features = ce.FeatureArray("mine", np.zeros((60, 4)))
    assert repr(recording) == (
        "<Recording toy: 60 stimuli × 6 repetitions × 5 neuroids, IT, 8°, simulated>"
    )
    assert repr(recording.images) == "<ImageSet toy: 60 images>"
    assert repr(network) == "<Network mine: 224 px, IT 1>"
    assert repr(features) == "<FeatureArray mine: features 60 × 4>"


def test_an_origin_is_one_of_three(stimuli):
    with pytest.raises(DataError, match="not a dream"):
        ce.make_recording(np.eye(60), stimuli, "IT", origin="a dream")


@pytest.fixture
def module():
    torch.manual_seed(0)
    return torch.nn.Sequential(
        torch.nn.Conv2d(3, 6, 5, stride=3), torch.nn.Tanh(), torch.nn.Flatten()
    )


SMALL = {"components": 5, "splits": 3}


def test_a_module_is_scored_in_three_lines(module, recording, tmp_path):
    network = ce.load_network(module, name="toy", input_size=16, layers={"IT": "2"})
    # A network and a recording may share a name.
    result = ce.score(network, recording, results=tmp_path, **SMALL)
    (row,) = result.rows
    assert (row.model, row.recording, row.layer) == ("toy", "toy", "2")
    assert result.frame.loc[0, "value"] == row.value
    assert result.arrays[row.config_id]["r"].shape == (3, 5)
    again = ce.score(network, recording, results=tmp_path, **SMALL)
    assert again.n_stored == 1
    assert again.rows == result.rows


def test_scores_of_objects_stand_beside_untrained_networks_and_animals(
    module, recording, tmp_path, rng
):
    animal = np.array(["A", "B"])[np.arange(len(recording.neuroid_ids)) % 2]
    both = dataclasses.replace(recording, neuroids={"animal": animal})
    before = {name: value.clone() for name, value in module.state_dict().items()}
    network = ce.load_network(module, name="mine", input_size=16, layers={"IT": "1"})
    settings = {"regression": "ridge", "alpha": 1.0, "splits": 2}
    result = ce.score(network, both, nulls=1, brain=True, results=tmp_path, **settings)
    assert not result.failures
    raw = result.frame.set_index("model")["raw"]
    name = both.identifier
    others = ["untrained/1:mine", "pixels", "gabor", "v1_like"]
    others += [f"brain/{name}:A", f"brain/{name}:B"]
    assert set(raw.index) == {"mine", *others}
    assert raw["mine"].iloc[0] != raw["untrained/1:mine"].iloc[0]
    after = module.state_dict()
    assert all(torch.equal(value, after[name]) for name, value in before.items())


def test_a_dict_labels_networks(module, recording, tmp_path):
    network = ce.load_network(module, name="toy", input_size=16, layers={"IT": "2"})
    named = {"mine": network, "raw pixels": "pixels"}
    result = ce.score(named, recording, results=tmp_path, **SMALL)
    assert [row.label for row in result.rows] == ["mine", "raw pixels"]


def test_an_array_of_features_has_the_score_of_the_network_it_is_from(
    module, recording, stimuli, tmp_path
):
    from ce_align.models.features import extract

    network = ce.load_network(module, input_size=16, layers={"IT": "2"})
    shown = recording.images.on_screen(recording.degrees, 8.0)
    features = extract(network, shown, ["2"], cache=None)["2"].values
    (expected,) = ce.score(network, recording, results=tmp_path, **SMALL).rows
    (row,) = ce.score(np.array(features), recording, results=tmp_path, **SMALL).rows
    assert (row.value, row.raw) == (expected.value, expected.raw)
    assert row.layer == "features"
    again = ce.score(np.array(features), recording, results=tmp_path, **SMALL)
    assert again.n_stored == 1
    other = ce.score(np.array(features[::-1]), recording, results=tmp_path, **SMALL)
    assert other.n_stored == 0
    assert other.rows[0].raw != row.raw


@pytest.mark.parametrize(
    ("features", "message"),
    [
        (np.zeros((59, 4)), "59 stimuli, but toy has 60"),
        (np.zeros(60), r"\(n_stimuli, n_features\)"),
        (np.full((60, 4), np.nan), "NaN"),
        (np.array([["a"]]), "must be numbers"),
    ],
)
def test_an_array_that_is_no_features_is_refused(
    features, message, recording, tmp_path
):
    with pytest.raises(DataError, match=message):
        ce.score(features, recording, results=tmp_path)


def test_features_are_no_network_that_can_see(recording, tmp_path):
    features = ce.FeatureArray("mine", np.ones((60, 4)))
    with pytest.raises(ConfigError, match="give a network"):
        ce.analyze(features, "bures", results=tmp_path, comparisons=10, views=4)


def test_a_module_is_analysed_and_drawn_in_three_lines(module, tmp_path):
    network = ce.load_network(module, name="mine", input_size=16, layers={"IT": "1"})
    small = {"comparisons": 10, "views": 4, "crops": 4, "photometrics": 4, "size": 16}
    result = ce.analyze(network, "bures", results=tmp_path, **small)
    assert {row.metric for row in result.rows} >= {"augmentation_augmentation"}
    assert all(row.model == "mine" for row in result.rows)
    drawn = ce.figure("geometry", result)
    png, size = drawn._repr_png_()
    assert png.startswith(b"\x89PNG") and size == {"width": 720}
    drawn.savefig(tmp_path / "figure.png")
    outcome = Outcome(files=[tmp_path / "figure.png"], captions=["n < 3"])
    shown = outcome._repr_html_()
    assert '<img src="data:image/png;base64,' in shown and "n &lt; 3" in shown


def test_responses_and_features_have_a_bures_distance(recording, rng):
    averaged = recording.averaged()
    covariances = [np.cov(x, rowvar=False) for x in (averaged, averaged + 1)]
    distance = ce.metrics.bures.squared_bures_distance(*covariances)
    assert distance == pytest.approx(0, abs=1e-8)


def test_own_responses_without_repetitions_have_no_ceiling(stimuli, rng, tmp_path):
    recording = ce.make_recording(rng.normal(size=(60, 3)), stimuli, "V4", name="one")
    (row,) = ce.score("pixels", recording, results=tmp_path, **SMALL).rows
    assert row.value is None
    assert "no repetitions" in row.note


def test_what_fails_is_raised_if_it_is_all_and_named_if_it_is_not(recording, tmp_path):
    with pytest.raises(ConfigError, match="nothing"):
        ce.score("nothing", recording, results=tmp_path)
    result = ce.score(["nothing", "pixels"], recording, results=tmp_path, **SMALL)
    assert [row.model for row in result.rows] == ["pixels"]
    assert [what for what, _ in result.failures] == ["nothing"]
    assert "1 row" in repr(result)
    assert "failed: nothing" in repr(result)


def test_an_outcome_is_shown_as_html_without_reading_names_as_markup(
    module, recording, tmp_path
):
    network = ce.load_network(module, name="<b>", input_size=16, layers={"IT": "2"})
    shown = ce.score(network, recording, results=tmp_path, **SMALL)._repr_html_()
    assert "&lt;b&gt;" in shown
    assert "<td>toy</td>" in shown


def test_two_objects_of_one_name_are_refused(module, recording, tmp_path):
    networks = [ce.load_network(module, name="a", input_size=16) for _ in range(2)]
    with pytest.raises(ConfigError, match="two objects are called 'a'"):
        ce.score(networks, recording, results=tmp_path)
    network = ce.load_network(module, name="pixels", input_size=16)
    with pytest.raises(ConfigError, match="name of an object and of something else"):
        ce.score([network, "pixels"], recording, results=tmp_path)
    with pytest.raises(ConfigError, match="load_network"):
        ce.score(module, recording, results=tmp_path)


def test_every_name_of_the_face_is_there_and_the_stub_says_the_same():
    names = set(ce.__all__)
    for name in names:
        assert getattr(ce, name) is not None
    stub = ast.parse(Path(ce.__file__).with_suffix(".pyi").read_text())
    told = {
        alias.asname: f"{node.module}.{alias.name}"
        for node in ast.walk(stub)
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert set(told) | {"__version__"} == names
    for name, where in told.items():
        module, _, own = where.rpartition(".")
        expected = getattr(importlib.import_module(module), own)
        assert getattr(ce, name) is expected, name


def test_the_face_costs_nothing_until_it_is_used():
    code = "import sys, ce_align; dir(ce_align); print(len(sys.modules))"
    bare = "import sys, importlib.metadata; print(len(sys.modules))"
    n, n_bare = (
        int(subprocess.check_output([sys.executable, "-c", text]))
        for text in (code, bare)
    )
    assert n - n_bare < 40


def test_settings_are_in_the_signature_and_a_wrong_one_is_one_line(recording, tmp_path):
    parameters = inspect.signature(ce.score).parameters
    assert parameters["splits"].default == 10
    assert "settings" not in parameters
    with pytest.raises(ConfigError, match="no setting 'regresion'; nearest: regress"):
        ce.score("pixels", recording, results=tmp_path, regresion="ridge")
    with pytest.raises(ConfigError, match="splits"):
        ce.score("pixels", recording, results=tmp_path, splits=0)
    with pytest.raises(ConfigError, match="no setting 'epoch'; nearest: epochs"):
        ce.train("mmcr", 0.1, "simulated", preset="tiny", out=tmp_path, epoch=1)


def test_results_are_frames_and_arrays(recording, tmp_path):
    with pytest.raises(ConfigError, match="no folder"):
        ce.open_results(tmp_path / "none")
    (row,) = ce.score("pixels", recording, results=tmp_path, **SMALL).rows
    results = ce.open_results(tmp_path)
    assert list(results.frame("score")["value"]) == [row.value]
    assert results.arrays("score", row.config_id)["r"].shape == (3, 5)


@pytest.fixture
def few_scenes(monkeypatch):
    monkeypatch.setattr("ce_align.trainer.data.N_SCENES", 128)


@pytest.mark.usefixtures("few_scenes")
def test_training_gives_a_network(tmp_path):
    folder = ce.train("mmcr", 0.3, "simulated", preset="tiny", out=tmp_path, epochs=0)
    network = ce.load_network(folder)
    assert (network.facts.objective, network.facts.equivariance_weight) == ("mmcr", 0.3)


@pytest.mark.usefixtures("few_scenes")
def test_a_training_is_followed_on_a_recording_that_is_asked_for(tmp_path):
    with pytest.raises(ConfigError, match="unknown recording 'nonesuch'"):
        settings = {"preset": "tiny", "out": tmp_path, "recording": "nonesuch"}
        ce.train("mmcr", 0.3, "simulated", **settings)


def test_what_would_be_ignored_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="bures"):
        ce.analyze("gabor", "decoding", baseline="pixels", results=tmp_path)
    with pytest.raises(ConfigError, match="columns: Input should be 1 or 2, found 3"):
        ce.figure("1", tmp_path, columns=3)
    with pytest.raises(ConfigError, match="99"):
        ce.figure("99", tmp_path)
    with pytest.raises(ConfigError, match="nearest: permutations"):
        ce.correlate(results=tmp_path, permutation=3)


CLIP = """
import torch

class Clip(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.visual = torch.nn.Sequential(torch.nn.Conv2d(3, 6, 5, stride=3))
        self.text = torch.nn.Embedding(4, 6)

    def forward(self, image, text):
        return self.visual(image).mean((2, 3)) @ self.text(text).T

def build():
    torch.manual_seed(0)
    return Clip()
"""


def test_a_part_of_a_network_scores_as_it_does_alone(recording, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "clip.py").write_text(CLIP)
    settings = {**SMALL, "layer": "0", "results": tmp_path}
    (row,) = ce.score("./clip.py:build", recording, submodule="visual", **settings).rows
    assert row.model == "clip.py:build@visual"
    whole = ce.load_network("clip.py:build")
    alone = ce.load_network(whole.module.visual, name="visual")
    (expected,) = ce.score(alone, recording, **settings).rows
    assert row.raw == expected.raw
    given = ce.load_network(whole.module, name="clip")
    (same,) = ce.score(given, recording, submodule="visual", **settings).rows
    assert (same.model, same.raw) == ("clip@visual", expected.raw)
    with pytest.raises(ce.ConfigError, match="no layer 'visuel'; nearest: visual"):
        ce.score(given, recording, submodule="visuel", **settings)


def test_every_layer_of_a_pattern_is_analysed_though_none_is_committed(
    module, tmp_path, stimuli
):
    network = ce.load_network(module, name="bare", input_size=16)
    outcome = ce.analyze(
        network,
        "dimensionality",
        images=ce.ImageSet.from_array("toy", stimuli),
        layer="[01]",
        comparisons=10,
        views=4,
        crops=4,
        photometrics=4,
        size=16,
        results=tmp_path,
    )
    assert {row.layer for row in outcome.rows} == {"0", "1"}
