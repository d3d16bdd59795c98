"""From networks and images to rows: planted truth, identity, and resuming."""

import json
import signal
import warnings
from pathlib import Path

import numpy as np
import pytest
from toys import analysed, measure_planted, toy_images, toy_job, toy_network

from ce_align.augment import AugmentationLedger
from ce_align.results import ResultStore
from ce_align.stages.measures import MEASURES
from ce_align.stages.running import Hardware
from ce_align.stages.views import ViewPlan, ViewSet

pytestmark = pytest.mark.slow

#: Axes for content, and for each of the twelve parameters.
D = 20
#: Enough for decoding: 12 parameters from 2 × 20 features.
ENOUGH = {"comparisons": 40, "views": 20, "crops": 8, "photometrics": 8}


def content_of(image, scale=10.0):
    """A point of the first eight axes for each image."""
    point = np.zeros(D)
    point[:8] = scale * np.random.default_rng([7, image]).normal(size=8)
    return point


def changes_of(ledger):
    """Parameters (n, 12), none much larger than the others."""
    neutral = AugmentationLedger.identity(1).parameters()
    spread = np.array([0.3, 0.3, 0.3, 0.3, 0.5, 0.2, 0.2, 0.1, 0.05, 0.4, 0.7, 0.3])
    return (ledger.parameters() - neutral) / spread


def orthogonal(image, ledger):
    """Content and each parameter have axes of their own."""
    changes = np.pad(changes_of(ledger), ((0, 0), (8, 0)))
    return content_of(image) + changes


def entangled(image, ledger):
    """Every image turns its changes in a way of its own, among its content."""
    rng = np.random.default_rng([8, image])
    turn = np.linalg.qr(rng.normal(size=(12, 12)))[0]
    return content_of(image, 2.0) + np.pad(changes_of(ledger) @ turn, ((0, 0), (0, 8)))


def shared(image, ledger):
    """Spatial and photometric parameters move along the same axes as content."""
    changes = changes_of(ledger)
    return content_of(image, 2.0) + np.pad(
        changes[:, :6] + changes[:, 6:], ((0, 0), (0, D - 6))
    )


def invariant(image, ledger):
    """Only content."""
    return np.tile(content_of(image), (len(ledger), 1))


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    """Value of every measure of the planted networks, and their reports."""
    images = toy_images(40, n_classes=5)
    found = {}
    for plant in (orthogonal, entangled, shared, invariant):
        folder = tmp_path_factory.mktemp(plant.__name__)
        found[plant.__name__] = measure_planted(
            folder, plant, list(MEASURES), images, **ENOUGH
        )
    return found


def test_rows_are_the_numbers_that_measures_declare_within_their_bounds(planted):
    known = {one.name: one for m in MEASURES.values() for one in m.quantities}
    # Differences need a baseline.
    expected = {name for name in known if not name.endswith("_delta")}
    assert planted["orthogonal"][0].keys() == expected
    for rows, _ in planted.values():
        for name, row in rows.items():
            if row.value is not None:
                assert known[name].least <= row.value <= known[name].most + 1e-9


def test_equal_displacements_have_no_excess_and_turned_ones_have(planted):
    name = "augmentation_augmentation_excess"
    equal, turned = (planted[p][0][name] for p in ("orthogonal", "entangled"))
    assert equal.low < 0 < equal.high
    assert turned.low > 0
    assert turned.value > 5 * abs(equal.value)


def test_changes_apart_from_content_are_as_far_from_it_as_can_be(planted):
    apart, among = (
        planted[p][0]["augmentation_centroid"].value
        for p in ("orthogonal", "entangled")
    )
    assert apart > 1.8
    assert among < apart - 0.5


def test_spatial_and_photometric_axes_of_their_own_are_far_apart(planted):
    rows, _ = planted["orthogonal"]
    assert rows["spatial_photometric"].value == pytest.approx(2, abs=1e-6)
    shared, _ = planted["shared"]
    assert shared["spatial_photometric"].value < 1.5


def test_equal_parameters_are_decoded_and_turned_ones_are_not(planted):
    rows, turned, still = (
        planted[p][0] for p in ("orthogonal", "entangled", "invariant")
    )
    for name in ("decoding_ols", "decoding_ridge", "decoding_ridge_hue"):
        assert rows[name].value > 0.98
    assert turned["decoding_ridge"].value < 0.3
    assert still["decoding_ridge"].value < 0.01


def test_factorization_and_steerability_follow_the_planted_structure(planted):
    rows, turned, still = (
        planted[p][0] for p in ("orthogonal", "entangled", "invariant")
    )
    for family in ("strong", "spatial", "photometric"):
        assert rows[f"factorization_{family}"].value > 0.98
        assert turned[f"factorization_{family}"].value < 0.6
        assert still[f"factorization_{family}"].value is None
        assert still[f"invariance_{family}"].value == pytest.approx(1)
    assert rows["steerability_by_transformation"].value == pytest.approx(1, abs=1e-6)
    assert rows["steerability_by_parameters"].value > 0.95
    assert turned["steerability_by_transformation"].value < 0.3
    assert still["steerability_by_parameters"].value is None


def test_an_invariant_network_has_no_shape_to_compare_and_the_report_says_so(planted):
    _, report = planted["invariant"]
    failed = {what: str(error) for what, error in report.failures}
    assert sorted(failed) == ["toy, bures", "toy, dimensionality"]
    assert "augmentation_augmentation" in failed["toy, bures"]
    assert "constant" in failed["toy, bures"]


def test_rows_say_what_they_are_of(planted):
    rows, report = planted["orthogonal"]
    assert report.failures == []
    assert rows["augmentation_augmentation"].n_points == 20
    assert rows["augmentation_augmentation"].n_comparisons == 40
    assert rows["class_class"].n_points == 8
    assert rows["class_class"].n_units == 5
    assert rows["class_class"].low is None
    assert rows["class_class"].note == "no interval: fewer than 8 classes"
    assert rows["augmentation_centroid"].interval == "images"
    assert rows["dimensionality_strong"].interval == "images"
    few = "no interval: fewer than 50 images held out"
    assert few in rows["decoding_ridge"].note
    assert rows["decoding_ridge"].n_points == 32 * 20
    assert rows["factorization_strong"].low is None


def run(folder, jobs, images=None, **options):
    return analysed(folder, jobs, images or toy_images(), **options)


def numbers(report):
    return [row.model_dump(exclude={"created"}) for row in report.rows]


def every(network=None, baseline=None, **settings):
    return [toy_job(network, baseline, metric=m, **settings) for m in MEASURES]


def test_a_network_against_itself_does_not_differ(tmp_path):
    network = toy_network()
    report = run(tmp_path, [toy_job(network, network)])
    differences = [row for row in report.rows if row.metric.endswith("_delta")]
    assert len(differences) == 6
    for row in differences:
        assert row.value == 0
        # Few images in pairs have no interval.
        assert {row.low, row.high} <= {0.0, None}
        assert row.baseline == "toy"


def test_differences_from_a_baseline_are_those_of_the_rows(tmp_path):
    network, baseline = toy_network(0), toy_network(1, "baseline")
    jobs = [toy_job(network, baseline), toy_job(baseline)]
    rows = {(row.model, row.metric): row for row in run(tmp_path, jobs).rows}
    for name in ("augmentation_augmentation", "spatial_photometric_excess"):
        expected = rows["baseline", name].value - rows["toy", name].value
        assert rows["toy", f"{name}_delta"].value == pytest.approx(expected, abs=1e-12)
        assert ("baseline", f"{name}_delta") not in rows
        # A name may stand for another network later; the digest does not.
        digest = rows["baseline", name].model_digest
        assert rows["toy", f"{name}_delta"].baseline_digest == digest
        assert rows["toy", name].baseline_digest is None


def test_a_second_run_answers_from_the_store(tmp_path, monkeypatch):
    first = run(tmp_path, every())
    with monkeypatch.context() as patch:
        patch.setattr(ViewSet, "render", lambda *_: pytest.fail("rendered again"))
        second = run(tmp_path, every())
    assert second.rows == first.rows
    assert (first.n_stored, second.n_stored) == (0, 5)
    forced = run(tmp_path, every(), force=True)
    assert forced.n_stored == 0
    assert numbers(forced) == numbers(first)


def test_views_of_all_measures_are_one_pass_that_only_moves_on(tmp_path):
    told = []
    run(tmp_path, every(), progress=lambda *one: told.append(one))
    done = [one[1] for one in told if one[0] == "views"]
    (total,) = {one[2] for one in told if one[0] == "views"}
    assert done == sorted(set(done))
    assert done[-1] == total


def test_workers_and_batches_do_not_change_a_number(tmp_path):
    one = run(tmp_path / "1", every())
    two = run(tmp_path / "2", every(), hardware=Hardware(workers=2))
    assert numbers(one) == numbers(two)


def test_changed_weights_images_or_seed_have_another_identity(tmp_path):
    def identity(images=None, **job):
        (row, *_) = run(
            tmp_path, [toy_job(metric="dimensionality", **job)], images
        ).rows
        return row.config_id

    ids = [
        identity(),
        identity(network=toy_network(1)),
        identity(images=toy_images(seed=1)),
        identity(seed=1),
    ]
    assert len(set(ids)) == 4
    assert identity() == ids[0]


def test_classes_are_compared_where_there_are_labels(tmp_path):
    def metrics(images):
        return {row.metric for row in run(tmp_path, [toy_job()], images).rows}

    assert "class_class" in metrics(toy_images(30, n_classes=5))
    assert not any("class" in name for name in metrics(toy_images(30)))


def test_ledgers_are_saved_and_replay(tmp_path):
    images = toy_images(30, n_classes=5)
    job = toy_job()
    report = run(tmp_path, [job], images)
    store = ResultStore(tmp_path / "results")
    arrays = store.arrays("analyze", report.rows[0].config_id)
    plan = ViewPlan(images, job.config)
    for name in job.view_names:
        digest = arrays.attrs[f"ledger_{name}"]
        path = tmp_path / "results" / "analyze" / "ledgers" / f"{digest}.npz"
        views = plan.views(name)
        assert AugmentationLedger.load(path).digest == views.ledger.digest
        assert views.digest == digest
    assert list(arrays["image_id"].values) == list(plan.chosen.ids)
    assert list(arrays["class_id"].values) == list(plan.classes)


def test_a_collapsed_network_is_refused_by_name_and_leaves_the_others(tmp_path):
    dead = toy_network(0, "dead")
    for parameter in dead.module.parameters():
        parameter.data.zero_()
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        report = run(tmp_path, every(dead) + every(toy_network(1)))
    assert {row.model for row in report.rows} == {"toy"}
    failed = {what: str(error) for what, error in report.failures}
    assert sorted(failed) == [f"dead, {metric}" for metric in sorted(MEASURES)]
    for error in failed.values():
        assert error.startswith("dead 1, ")
        assert "collapsed" in error or "constant" in error
    assert "dead 1, augmentation_augmentation" in failed["dead, bures"]


KILLED = """
import os, signal, sys
from contextlib import contextmanager
from pathlib import Path
sys.path[:0] = {places!r}
from ce_align.stages import responses
from test_analyze import every, run
folder, whole = Path({folder!r}), responses.atomic_path

@contextmanager
def killed(path):
    with whole(path) as temporary:
        yield temporary
        if len(list(folder.rglob("0*.npy"))) == 5:
            os.kill(os.getpid(), signal.SIGKILL)

responses.atomic_path = killed
run(folder, every())
"""


def test_a_run_that_was_killed_goes_on_where_it_stopped(tmp_path, monkeypatch, python):
    whole = run(tmp_path / "whole", every())
    folder = tmp_path / "killed"
    here = Path(__file__).parent
    code = KILLED.format(places=[str(here), str(here.parent)], folder=str(folder))
    killed = python("-c", code)
    _, errors = killed.communicate()
    assert killed.returncode == -signal.SIGKILL, errors
    assert len(list(folder.rglob("*.tmp*"))) == 1
    stored = {p: p.stat().st_mtime_ns for p in folder.rglob("0*.npy")}
    rendered = []
    render = ViewSet.render
    monkeypatch.setattr(
        ViewSet, "render", lambda self, i: rendered.append(i) or render(self, i)
    )
    again = run(folder, every())
    assert numbers(again) == numbers(whole)
    assert {p: p.stat().st_mtime_ns for p in stored} == stored
    # Seven view sets of twelve images, less the blocks of four that were there.
    assert len(rendered) == 7 * 12 - 4 * len(stored)
    assert len(stored) == 5
    assert not list(folder.rglob("*.tmp*"))


def test_rows_are_json(tmp_path):
    rows = run(tmp_path, every()).rows
    text = json.dumps([row.model_dump(mode="json") for row in rows], allow_nan=False)
    assert len(json.loads(text)) == len(rows)
