"""Views that are planned once, rendered once and answered by all networks."""

import shutil

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from toys import toy_config, toy_images, toy_network

from ce_align.augment import AugmentationLedger, sample
from ce_align.data.imagesets import ImageSet
from ce_align.errors import CeAlignError, ConfigError, DataError
from ce_align.models.networks import Network
from ce_align.models.preprocessing import Preprocessing
from ce_align.stages.measures import MEASURES
from ce_align.stages.responses import ResponseStore, respond
from ce_align.stages.running import Hardware, NetworkLayer
from ce_align.stages.views import ViewPlan, ViewSet, block_means


@given(
    st.integers(2, 7), st.integers(2, 7), st.integers(1, 4), st.integers(0, 2**32 - 1)
)
def test_block_means_give_the_means_over_crops_and_over_photometrics(
    n_crops, n_photometrics, n_features, seed
):
    rng = np.random.default_rng(seed)
    views = rng.normal(size=(n_crops, n_photometrics, n_features)).astype(np.float32)
    kept = block_means(views)
    c, p = n_crops // 2, n_photometrics // 2
    edges = np.cumsum([n_photometrics, n_photometrics, n_crops])
    over_c1, over_c2, over_p1, over_p2 = np.split(kept, edges)
    # Either mean of n numbers is off by at most n half steps of the largest.
    steps = max(n_crops, n_photometrics) * np.finfo(np.float32).eps
    exact = {"rtol": 0, "atol": steps * np.abs(views).max()}
    np.testing.assert_allclose(over_c1, views[:c].mean(axis=0), **exact)
    np.testing.assert_allclose(over_c2, views[c:].mean(axis=0), **exact)
    np.testing.assert_allclose(over_p1, views[:, :p].mean(axis=1), **exact)
    np.testing.assert_allclose(over_p2, views[:, p:].mean(axis=1), **exact)
    whole = (c * over_c1 + (n_crops - c) * over_c2) / n_crops
    # Two products, a sum and a quotient more.
    exact["atol"] += 4 * np.finfo(np.float32).eps * np.abs(views).max()
    np.testing.assert_allclose(whole, views.mean(axis=0), **exact)


def test_a_ledger_that_cannot_be_shared_equally_is_refused():
    with pytest.raises(DataError, match="7 views cannot be shared equally by 12"):
        ViewSet("strong", toy_images(12), sample("strong", 7, 0), 16)


def test_every_crop_meets_the_same_photometric_draws_unless_they_are_independent():
    def photometrics(**settings):
        views = ViewPlan(toy_images(), toy_config(**settings)).views("crossed")
        assert views.crossed == (4, 5)
        return views.rows(2).brightness.reshape(4, 5), views.rows(2)

    brightness, rows = photometrics(photometrics=5)
    assert (brightness == brightness[0]).all()
    assert len(np.unique(rows.crop_top.reshape(4, 5), axis=1).T) == 1
    brightness, _ = photometrics(photometrics=5, independent_photometrics=True)
    assert not (brightness == brightness[0]).all()


def test_shared_views_transform_every_image_alike_and_strong_views_do_not():
    plan = ViewPlan(toy_images(), toy_config())
    assert plan.views("shared").rows(0) == plan.views("shared").rows(7)
    assert plan.views("strong").rows(0) != plan.views("strong").rows(7)


def test_views_follow_from_the_seed_and_nothing_else_of_the_network():
    def digest(**settings):
        return ViewPlan(toy_images(), toy_config(**settings)).views("strong").digest

    assert digest() == digest(model="another", layer="0", metric="decoding")
    others = [digest(seed=1), digest(views=8), digest(size=24)]
    assert len({digest(), *others}) == 4


def pictures(folder, shapes):
    """Image files (height, width) of noise."""
    rng = np.random.default_rng(0)
    for i, shape in enumerate(shapes):
        pixels = rng.integers(0, 256, (*shape, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"{i:02d}.png")
    return ImageSet.from_path(folder)


SHAPES = [(30, 60), (60, 30), (40, 40), (25, 90), (50, 41), (33, 64)]


@pytest.mark.parametrize("name", ["clean", "classes"])
def test_clean_views_are_cropped_as_torchvision_crops_and_never_squeezed(
    name, tmp_path
):
    transforms = pytest.importorskip("torchvision.transforms")
    images = pictures(tmp_path, SHAPES * 4)
    images = images.with_columns({"label": np.arange(24) % 6})
    views = ViewPlan(images, toy_config(comparisons=24, size=28)).views(name)
    expected = transforms.Compose(
        [transforms.Resize(32), transforms.CenterCrop(28)]  # 256 and 224, eight times
    )
    for row in range(24):
        image = images.load(images.ids.index(views.images.ids[row]))
        np.testing.assert_array_equal(views.render(row)[0], np.asarray(expected(image)))


def test_crops_are_sampled_for_the_size_of_each_image(tmp_path):
    images = pictures(tmp_path, SHAPES)
    plan = ViewPlan(images, toy_config(views=50, crops=30, comparisons=24))
    for name in ("strong", "weak", "spatial", "crossed"):
        views = plan.views(name)
        for image, shape in enumerate(SHAPES):
            # Whole pixels of this image: sides are rounded, by half a pixel at most.
            tall, wide = (views.rows(image).parameters()[:, 2:4] * shape).T
            assert ((wide - 0.5) / (tall + 0.5) < 4 / 3).all()
            assert ((wide + 0.5) / (tall - 0.5) > 3 / 4).all()
    shared = plan.views("shared")
    assert shared.rows(0) == shared.rows(3)


def test_images_are_drawn_over_the_whole_set_and_balanced_over_classes():
    images = toy_images(400, n_classes=20)
    labels = images.columns["object_name"]
    order = np.argsort(labels, kind="stable")
    images = images.select(order.tolist())
    plan = ViewPlan(images, toy_config(comparisons=50))
    _, counts = np.unique(plan.chosen.columns["object_name"], return_counts=True)
    assert len(counts) == 20
    assert set(counts) == {2, 3}
    again = ViewPlan(images, toy_config(comparisons=50, seed=1))
    assert set(plan.chosen.ids) != set(again.chosen.ids)
    # A small class gives what it has.
    few = toy_images(30).with_columns({"object_name": np.repeat([0, 1, 2], [2, 3, 25])})
    chosen = ViewPlan(few, toy_config(comparisons=14)).chosen
    assert np.bincount(chosen.columns["object_name"]).tolist() == [2, 3, 9]


def test_centroids_take_every_image_that_is_given():
    images = toy_images(40)
    plan = ViewPlan(images, toy_config(comparisons=12))
    beyond = plan.views("centroids")
    assert len(plan.chosen) == 12
    assert set(beyond.images.ids) == set(images.ids) - set(plan.chosen.ids)
    assert beyond.n_views == plan.config.views
    responses = np.arange(12, dtype=np.float32).reshape(6, 2)
    np.testing.assert_array_equal(beyond.reduce(responses), [[5, 6]])
    assert ViewPlan(images, toy_config(comparisons=40)).views("centroids") is None
    few = toy_config(comparisons=12, centroids="compared")
    assert ViewPlan(images, few).views("centroids") is None


def test_classes_are_equally_large_and_absent_without_labels():
    images = toy_images(47, n_classes=6)
    plan = ViewPlan(images, toy_config())
    labels = images.columns["object_name"]
    assert {len(rows) for rows in plan.classes.values()} == {7}
    for name, rows in plan.classes.items():
        assert len(set(rows)) == 7
        assert {str(label) for label in labels[rows]} == {name}
    assert ViewPlan(toy_images(47), toy_config()).views("classes") is None
    assert ViewPlan(toy_images(47, n_classes=4), toy_config()).classes is None
    with pytest.raises(DataError, match="9 classes are asked for, toys has 6"):
        _ = ViewPlan(images, toy_config(classes=9)).classes


def test_many_classes_are_cut_to_those_that_meet_several_others():
    images = toy_images(400, n_classes=100)
    assert len(ViewPlan(images, toy_config(comparisons=12)).classes) == 6
    assert len(ViewPlan(images, toy_config(classes=40)).classes) == 40


def test_too_few_images_are_refused_in_words():
    with pytest.raises(DataError, match="toys has 4 images; analyses need 5"):
        _ = ViewPlan(toy_images(4), toy_config()).chosen


@pytest.fixture
def counted(monkeypatch):
    """Images that were rendered, in order."""
    seen = []
    render = ViewSet.render

    def count(self, image):
        seen.append((self.name, image))
        return render(self, image)

    monkeypatch.setattr(ViewSet, "render", count)
    return seen


def layers_of(*networks):
    return [NetworkLayer.of(network, network.layer_for("IT")) for network in networks]


def test_a_view_is_rendered_once_for_all_networks(counted, tmp_path):
    plan = ViewPlan(toy_images(), toy_config())
    sets = [plan.views("strong"), plan.views("crossed")]
    both = layers_of(toy_network(0), toy_network(1))
    assert respond(both, sets, ResponseStore(tmp_path), hardware=Hardware()) == {}
    assert sorted(counted) == [(n, i) for n in ("crossed", "strong") for i in range(12)]


def test_only_what_is_not_stored_is_rendered_again(counted, tmp_path):
    views = ViewPlan(toy_images(), toy_config()).views("strong")
    first, second = layers_of(toy_network(0), toy_network(1))
    responses = ResponseStore(tmp_path)
    respond([first], [views], responses, hardware=Hardware())
    before = responses.load(first, views)
    responses.path(first, views, 1).unlink()
    counted.clear()
    respond([first], [views], responses, hardware=Hardware())
    assert [image for _, image in counted] == [4, 5, 6, 7]
    np.testing.assert_array_equal(responses.load(first, views), before)
    counted.clear()
    respond([first, second], [views], responses, hardware=Hardware())
    assert len(counted) == 12
    np.testing.assert_array_equal(responses.load(first, views), before)


def test_responses_are_those_of_the_network_to_the_views(tmp_path):
    import torch

    images, network = toy_images(), toy_network()
    views = ViewPlan(images, toy_config()).views("strong")
    (subject,) = layers_of(network)
    responses = ResponseStore(tmp_path)
    respond([subject], [views], responses, hardware=Hardware(workers=2))
    found = responses.load(subject, views)
    assert found.shape == (12, 6, 6)
    with torch.no_grad():
        inputs = network.preprocessing.normalise(torch.tensor(views.render(5)))
        expected = network.module[:2](inputs).mean(dim=(2, 3))
    np.testing.assert_allclose(found[5], expected, atol=1e-6)


def test_what_is_kept_of_crossed_views_does_not_grow_with_their_product(tmp_path):
    plan = ViewPlan(toy_images(), toy_config(crops=8, photometrics=10))
    views = plan.views("crossed")
    (subject,) = layers_of(toy_network())
    responses = ResponseStore(tmp_path)
    respond([subject], [views], responses, hardware=Hardware())
    assert views.n_views == 80
    assert responses.load(subject, views).shape == (12, 2 * 8 + 2 * 10, 6)
    sizes = [np.load(file).shape[0] for file in tmp_path.rglob("*.npy")]
    assert sizes == [4, 4, 4]


def test_one_network_that_cannot_answer_does_not_stop_the_others(tmp_path):
    import torch

    class Pair(torch.nn.Module):
        def forward(self, x):
            if len(x) > 2:
                raise ValueError("more than a pair")
            return x

    pair = torch.nn.Sequential(torch.nn.Flatten(), Pair())
    broken = Network("broken", pair, Preprocessing(input_size=16), {"IT": "1"})
    views = ViewPlan(toy_images(), toy_config()).views("strong")
    bad, good = layers_of(broken, toy_network())
    responses = ResponseStore(tmp_path)
    failed = respond([bad, good], [views], responses, hardware=Hardware())
    assert list(failed) == [bad.digest]
    assert "broken 1: the pass fails (" in str(failed[bad.digest])
    assert "ValueError: more than" in str(failed[bad.digest])
    assert len(responses.load(good, views)) == 12
    assert not responses.path(bad, views, 0).exists()


def test_an_unknown_device_is_refused_before_anything_is_rendered(counted, tmp_path):
    views = ViewPlan(toy_images(), toy_config()).views("strong")
    with pytest.raises(ConfigError, match="no device 'quantum'"):
        respond(
            layers_of(toy_network()),
            [views],
            ResponseStore(tmp_path),
            hardware=Hardware(device="quantum"),
        )
    assert counted == []


def test_saved_ledgers_replay_the_same_pixels(tmp_path):
    views = ViewPlan(toy_images(), toy_config()).views("crossed")
    path = views.ledger.save(tmp_path / "ledger.npz")
    again = ViewSet(
        "crossed", toy_images(), AugmentationLedger.load(path), 16, views.crossed
    )
    assert again.digest == views.digest
    np.testing.assert_array_equal(again.render(4), views.render(4))


def test_responses_that_do_not_fit_are_refused_before_they_are_written(
    monkeypatch, tmp_path
):
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1000))
    views = ViewPlan(toy_images(), toy_config()).views("strong")
    with pytest.raises(CeAlignError, match=r"the responses need .* ask for fewer"):
        respond(
            layers_of(toy_network(0)),
            [views],
            ResponseStore(tmp_path),
            hardware=Hardware(),
        )
    assert not list(tmp_path.rglob("*.npy"))


def test_another_family_has_views_of_its_own():
    images = toy_images()
    for family in ("strong", "weak", "tiny"):
        plan = ViewPlan(images, toy_config(family=family))
        clouds, *_ = MEASURES["bures"].view_names(family)
        assert clouds == family
        assert set(plan.views(clouds).ledger.family) == {family}
        assert set(plan.views("shared").ledger.family) == {family}
