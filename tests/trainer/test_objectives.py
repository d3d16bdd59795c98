"""Objectives and the combined loss against their definitions and invariances."""

import dataclasses
import functools
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from ce_align.augment import PARAMETER_NAMES
from ce_align.errors import ConfigError, DataError
from ce_align.trainer import distributed, objectives
from ce_align.trainer.augself import ParameterPrediction
from ce_align.trainer.equimod import EmbeddingPrediction
from ce_align.trainer.objectives import (
    OBJECTIVES,
    Objective,
    barlow_twins,
    combined_loss,
    find_objective,
    gradient_norms,
    gradient_share,
    mmcr,
    register_objective,
    simclr,
)

#: Those of the paper; what others do about equivariance is tested with them.
AUTHORS = ("mmcr", "barlow", "simclr")
SHAPES = [(6, 4), (4, 4), (5, 16), (2, 3), (17, 33)]


def unit(rows):
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def numpy_simclr(a, b, temperature):
    rows = np.concatenate([unit(a), unit(b)])
    n = len(a)
    terms = []
    for i in range(2 * n):
        logits = [rows[i] @ rows[j] / temperature for j in range(2 * n) if j != i]
        partner = rows[i] @ rows[(i + n) % (2 * n)] / temperature
        terms.append(np.log(np.sum(np.exp(logits))) - partner)
    return np.mean(terms)


def numpy_barlow(a, b, off_diagonal, scale, epsilon):
    standard = [(x - x.mean(0)) / np.sqrt(x.var(0) + epsilon) for x in (a, b)]
    correlation = standard[0].T @ standard[1] / len(a)
    weights = np.full_like(correlation, off_diagonal)
    np.fill_diagonal(weights, 1)
    return scale * np.sum(weights * (correlation - np.eye(len(correlation))) ** 2)


def numpy_mmcr(*views):
    centroids = np.mean([unit(view) for view in views], axis=0)
    return -np.linalg.svd(centroids, compute_uv=False).sum()


def numpy_loss(name, a, b, *momentum):
    if name == "simclr":
        return numpy_simclr(a, b, 0.15)
    if name == "barlow":
        return numpy_barlow(a, b, 5e-3, 0.048, 1e-5)
    return numpy_mmcr(a, b, *momentum)


def batches(rng, shape, n=2):
    common = rng.standard_normal(shape)
    return [common + rng.standard_normal(shape) for _ in range(n)]


def tensors(arrays, **options):
    return [torch.tensor(array, **options) for array in arrays]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", AUTHORS)
def test_loss_equals_its_definition_in_numpy(name, shape, rng):
    views = batches(rng, shape)
    found = OBJECTIVES[name].loss(*tensors(views))
    assert found.dtype == torch.float64
    assert found.item() == pytest.approx(numpy_loss(name, *views), rel=1e-12)


def test_mmcr_takes_the_mean_over_momentum_views_as_well(rng):
    views = batches(rng, (7, 5), 4)
    found = mmcr(*tensors(views)).item()
    assert found == pytest.approx(numpy_mmcr(*views), rel=1e-12)
    assert found != pytest.approx(numpy_mmcr(*views[:2]), rel=1e-3)


def test_options_change_the_loss_as_in_numpy(rng):
    views = batches(rng, (8, 5))
    a, b = tensors(views)
    assert simclr(a, b, temperature=0.5).item() == pytest.approx(
        numpy_simclr(*views, 0.5), rel=1e-12
    )
    assert barlow_twins(a, b, off_diagonal=0.1, scale=2, epsilon=1).item() == (
        pytest.approx(numpy_barlow(*views, 0.1, 2, 1), rel=1e-12)
    )


@pytest.mark.slow
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", AUTHORS)
def test_gradient_equals_finite_differences(name, shape, rng):
    views = tensors(batches(rng, shape), requires_grad=True)
    assert torch.autograd.gradcheck(OBJECTIVES[name].loss, views)


def test_momentum_views_change_the_gradient_but_receive_none(rng):
    views = tensors(batches(rng, (5, 4), 4), requires_grad=True)
    mmcr(*views).backward()
    assert views[0].grad is not None
    assert views[2].grad is None
    assert torch.autograd.gradcheck(
        lambda a, b: mmcr(a, b, views[2].detach(), views[3].detach()), views[:2]
    )


@given(n=st.integers(2, 12), d=st.integers(1, 40), seed=st.integers(0, 1000))
def test_both_forms_of_barlow_twins_agree_to_the_last_digits(n, d, seed):
    views = batches(np.random.default_rng(seed), (n, d))
    results = []
    with pytest.MonkeyPatch.context() as patch:
        for grams in (True, False):
            patch.setattr(objectives, "_grams_are_cheaper", lambda *_, g=grams: g)
            a, b = tensors(views, requires_grad=True)
            loss = barlow_twins(a, b)
            loss.backward()
            results.append((loss.detach(), a.grad, b.grad))
    for by_grams, by_correlation in zip(*results, strict=True):
        size = by_correlation.abs().max()
        assert (by_grams - by_correlation).abs().max() <= 1e-13 * (1 + size)


def test_barlow_twins_takes_grams_for_wide_embeddings_only():
    assert objectives._grams_are_cheaper(2048, 8192)
    assert not objectives._grams_are_cheaper(2048, 512)


@pytest.mark.parametrize("loss", [simclr, mmcr])
def test_length_of_each_embedding_is_ignored(loss, rng):
    a, b = batches(rng, (9, 6))
    lengths = rng.uniform(0.01, 100, (2, 9, 1))
    stretched = loss(*tensors([a * lengths[0], b * lengths[1]]))
    assert stretched.item() == pytest.approx(loss(*tensors([a, b])).item(), rel=1e-12)


@pytest.mark.parametrize("shape", [(9, 6), (6, 30)])
def test_barlow_twins_ignores_shift_and_scale_of_every_column(shape, rng):
    a, b = batches(rng, shape)
    scale, shift = rng.uniform(0.1, 10, (2, shape[1])), rng.normal(size=(2, shape[1]))
    moved = tensors([a * scale[0] + shift[0], b * scale[1] + shift[1]])
    before = barlow_twins(*tensors([a, b]), epsilon=1e-30).item()
    assert barlow_twins(*moved, epsilon=1e-30).item() == pytest.approx(
        before, rel=1e-11
    )


@pytest.mark.parametrize("loss", [simclr, mmcr])
def test_common_rotation_is_ignored(loss, rng):
    a, b = batches(rng, (9, 6))
    rotation, _ = np.linalg.qr(rng.standard_normal((6, 6)))
    turned = loss(*tensors([a @ rotation, b @ rotation])).item()
    assert turned == pytest.approx(loss(*tensors([a, b])).item(), rel=1e-12)


@pytest.mark.parametrize("name", AUTHORS)
def test_order_of_rows_and_exchange_of_views_are_ignored(name, rng):
    a, b = batches(rng, (9, 6))
    order = rng.permutation(9)
    loss = OBJECTIVES[name].loss
    before = loss(*tensors([a, b])).item()
    assert loss(*tensors([b[order], a[order]])).item() == pytest.approx(before)


@pytest.mark.parametrize("name", AUTHORS)
def test_matching_views_are_better_than_shuffled_ones(name, rng):
    a, _ = batches(rng, (32, 8))
    b = a + 0.1 * rng.standard_normal(a.shape)
    loss = OBJECTIVES[name].loss
    assert loss(*tensors([a, b])) < loss(*tensors([a, np.roll(b, 1, 0)]))


def test_best_losses_are_those_of_theory():
    frame = torch.eye(6, dtype=torch.float64)
    # Orthonormal centroids: n singular values of 1.
    assert mmcr(frame, frame).item() == pytest.approx(-6, rel=1e-12)
    # One partner at cosine 1 and ten others at cosine 0.
    ideal = math.log(math.exp(1 / 0.15) + 10) - 1 / 0.15
    assert simclr(frame, frame).item() == pytest.approx(ideal, rel=1e-9)
    # Orthogonal centred columns: the correlation is the identity.
    signs = torch.tensor([[1, 1], [1, -1], [-1, 1], [-1, -1]], dtype=torch.float64)
    assert barlow_twins(signs, signs, epsilon=1e-30).item() == pytest.approx(
        0, abs=1e-15
    )


def test_simclr_stays_finite_at_a_tiny_temperature(rng):
    a, b = tensors(batches(rng, (5, 4)), dtype=torch.float32, requires_grad=True)
    loss = simclr(a, b, temperature=1e-4)
    loss.backward()
    assert loss.isfinite()
    assert a.grad.isfinite().all()


@pytest.mark.parametrize("name", AUTHORS)
def test_embeddings_that_are_not_finite_show_in_loss_and_gradient(name, rng):
    a, b = tensors(batches(rng, (6, 4)))
    a[2, 1] = math.nan
    a.requires_grad_()
    loss = OBJECTIVES[name].loss(a, b)
    loss.backward()
    assert loss.isnan()
    assert a.grad.isnan().any()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("shape", [(8, 40), (40, 8)])
@pytest.mark.parametrize("name", AUTHORS)
def test_half_precision_stays_outside_the_reductions(name, shape, dtype, rng):
    loss = OBJECTIVES[name].loss
    halves = [t.to(dtype).requires_grad_() for t in tensors(batches(rng, shape))]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = loss(*halves)
        found.backward()
    singles = [h.detach().float().requires_grad_() for h in halves]
    exact = loss(*singles)
    exact.backward()
    assert found.dtype == torch.float32
    assert torch.equal(found, exact)
    for half, single in zip(halves, singles, strict=True):
        assert half.grad.dtype == dtype
        assert torch.equal(half.grad, single.grad.to(dtype))


@pytest.mark.parametrize("name", AUTHORS)
def test_shapes_that_do_not_fit_are_refused_in_words(name, rng):
    loss = OBJECTIVES[name].loss
    a, b = tensors(batches(rng, (4, 3)))
    with pytest.raises(
        DataError, match=r"equal shape.*view_a has \(4, 3\) and view_b has \(3, 3\)"
    ):
        loss(a, b[:3])
    with pytest.raises(DataError, match=r"\(n, d\).*\(4, 3, 1\)"):
        loss(a[..., None], b[..., None])
    with pytest.raises(DataError, match="int64"):
        loss(a.long(), b.long())
    with pytest.raises(DataError, match="at least two"):
        loss(a[:1], b[:1])


def test_settings_that_do_not_exist_are_refused(rng):
    a, b = tensors(batches(rng, (4, 3)))
    with pytest.raises(ConfigError, match="temperature is 0; give a positive"):
        simclr(a, b, temperature=0)
    with pytest.raises(ConfigError, match="epsilon is 0; give a positive"):
        barlow_twins(a, b, epsilon=0)
    with pytest.raises(DataError, match="both or neither"):
        mmcr(a, b, a)
    with pytest.raises(ConfigError, match="mmcr, barlow, simclr"):
        find_objective("byol")
    with pytest.raises(ConfigError, match=r"no option 'tau'.*temperature"):
        OBJECTIVES["simclr"].configured(tau=0.2)
    with pytest.raises(ConfigError, match="no use for momentum"):
        OBJECTIVES["simclr"].configured(ema=0.9)
    with pytest.raises(ConfigError, match="0 to 1"):
        OBJECTIVES["mmcr"].configured(ema=1.5)
    with pytest.raises(ConfigError, match="positive"):
        OBJECTIVES["mmcr"].configured(head_widths=(8, 0))


def test_registry_holds_the_settings_of_the_paper():
    found = {
        k: (v.name, v.head_widths, v.ema) for k, v in OBJECTIVES.items() if k in AUTHORS
    }
    assert found == {
        "mmcr": ("mmcr", (8192, 8192, 512), 0.99),
        "barlow": ("barlow", (8192, 8192, 8192), None),
        "simclr": ("simclr", (8192, 8192, 512), None),
    }


def test_a_configured_objective_has_its_own_settings(rng):
    views = batches(rng, (5, 4))
    changed = OBJECTIVES["simclr"].configured(temperature=0.2, head_widths=(16, 4))
    assert changed.head_widths == (16, 4)
    found = changed.loss(*tensors(views)).item()
    assert found == pytest.approx(numpy_simclr(*views, 0.2), rel=1e-12)
    again = changed.configured(temperature=0.3).loss(*tensors(views)).item()
    assert again == pytest.approx(numpy_simclr(*views, 0.3), rel=1e-12)
    unpaired = OBJECTIVES["mmcr"].configured(ema=None)
    assert (unpaired.ema, unpaired.loss) == (None, mmcr)


def test_losses_and_gradients_equal_those_of_lightly(rng):
    loss = pytest.importorskip("lightly.loss")
    for shape in [(8, 5), (6, 20)]:
        views = batches(rng, shape)
        for ours, theirs in [
            (simclr, loss.NTXentLoss(temperature=0.15)),
            (
                lambda a, b: barlow_twins(a, b, off_diagonal=0.02, scale=1),
                loss.BarlowTwinsLoss(lambda_param=0.02),
            ),
        ]:
            results = []
            for function in (ours, theirs):
                a, b = tensors(views, requires_grad=True)
                value = function(a, b)
                value.backward()
                results.append((value.detach(), a.grad, b.grad))
            for mine, other in zip(*results, strict=True):
                torch.testing.assert_close(mine, other, rtol=1e-10, atol=1e-12)


def stacks(rng, objective, n=6, d=5):
    """Embeddings as keyword arguments of `combined_loss`."""
    names = ["invariant", "equivariant"]
    if objective.ema is not None:
        names += ["momentum_invariant", "momentum_equivariant"]
    return {k: torch.tensor(rng.standard_normal((4, n, d))) for k in names}


@pytest.mark.parametrize("name", AUTHORS)
def test_terms_are_the_objective_of_views_and_of_differences(name, rng):
    objective = OBJECTIVES[name]
    given = stacks(rng, objective)
    views, changes = [], []
    for key, (a_1, b_1, a_2, b_2) in given.items():
        if key.endswith("invariant"):
            views += [torch.cat([a_1, a_2]), torch.cat([b_1, b_2])]
        if key.endswith("equivariant"):
            changes += [a_1 - b_1, a_2 - b_2]
    terms = combined_loss(objective, **given, equivariance_weight=0.3)
    assert terms.invariant.item() == pytest.approx(objective.loss(*views).item())
    assert terms.equivariant.item() == pytest.approx(objective.loss(*changes).item())
    total = 0.7 * objective.loss(*views) + 0.3 * objective.loss(*changes)
    assert terms.total.item() == pytest.approx(total.item(), rel=1e-12)


@pytest.mark.parametrize("name", AUTHORS)
@pytest.mark.parametrize("weight", [0, 1])
def test_at_either_end_one_term_is_the_loss_and_the_other_is_not_computed(
    name, weight, rng
):
    objective = OBJECTIVES[name]
    given = stacks(rng, objective)
    calls = []

    @functools.wraps(objective.loss)
    def counted(*batches, **options):
        calls.append(len(batches[0]))
        return objective.loss(*batches, **options)

    counting = dataclasses.replace(objective, loss=counted)
    terms = combined_loss(counting, **given, equivariance_weight=weight)
    both = combined_loss(objective, **given, equivariance_weight=0.5)
    used, unused = ("equivariant", "invariant")[:: 1 if weight else -1]
    assert terms.total is getattr(terms, used)
    assert torch.equal(terms.total, getattr(both, used))
    assert getattr(terms, unused) is None
    assert calls == [6 if weight else 12]


@pytest.mark.slow
@given(st.floats(0.001, 0.999), st.sampled_from(AUTHORS))
def test_gradient_is_the_weighted_sum_of_both(weight, name):
    objective = OBJECTIVES[name]
    given = stacks(np.random.default_rng(0), objective)
    heads = [given[k].requires_grad_() for k in ("invariant", "equivariant")]
    terms = combined_loss(objective, **given, equivariance_weight=weight)
    found = torch.autograd.grad(terms.total, heads, retain_graph=True)
    for gradient, term, head, share in zip(
        found,
        (terms.invariant, terms.equivariant),
        heads,
        (1 - weight, weight),
        strict=True,
    ):
        (alone,) = torch.autograd.grad(term, head, retain_graph=True)
        torch.testing.assert_close(gradient, share * alone, rtol=1e-12, atol=0)


@pytest.mark.parametrize("name", AUTHORS)
def test_equivariant_term_ignores_what_the_views_of_an_image_share(name, rng):
    objective = OBJECTIVES[name]
    given = stacks(rng, objective)
    shift = torch.tensor(rng.standard_normal((2, 1, 6, 5))).expand(2, 2, 6, 5)
    moved = given | {"equivariant": given["equivariant"] + shift.reshape(4, 6, 5)}
    before, after = (
        combined_loss(objective, **g, equivariance_weight=1.0).total.item()
        for g in (given, moved)
    )
    assert after == pytest.approx(before, rel=1e-12)


def test_differences_of_half_precision_embeddings_are_taken_in_single(rng):
    base = torch.tensor(1000 + rng.standard_normal((4, 6, 5)), dtype=torch.bfloat16)
    terms = combined_loss(OBJECTIVES["simclr"], base, base, 1.0)
    exact = combined_loss(OBJECTIVES["simclr"], base.float(), base.float(), 1.0)
    assert torch.equal(terms.total, exact.total)


@pytest.mark.parametrize("name", AUTHORS)
def test_identical_views_leave_a_finite_gradient(name, rng):
    objective = OBJECTIVES[name]
    given = stacks(rng, objective)
    given["equivariant"] = torch.ones(4, 6, 5, dtype=torch.float64, requires_grad=True)
    terms = combined_loss(objective, **given, equivariance_weight=0.5)
    terms.total.backward()
    assert terms.total.isfinite()
    assert given["equivariant"].grad.isfinite().all()


def test_gradient_norms_are_those_of_separate_backward_passes(rng):
    objective = OBJECTIVES["barlow"]
    backbone = nn.Linear(7, 5).double()
    unused = nn.Parameter(torch.ones(3))
    inputs = torch.tensor(rng.standard_normal((4, 6, 7)))

    def terms():
        features = backbone(inputs)
        return combined_loss(objective, features, features.square(), 0.3)

    parameters = [*backbone.parameters(), unused]
    found = gradient_norms(terms(), parameters)
    assert all(p.grad is None for p in parameters)
    for norm, name in zip(found, ("invariant", "equivariant"), strict=True):
        backbone.zero_grad()
        getattr(terms(), name).backward()
        squares = sum(p.grad.square().sum() for p in backbone.parameters())
        assert norm == pytest.approx(squares.sqrt().item(), rel=1e-12)


def test_gradient_norm_of_a_term_that_was_not_computed_is_nan(rng):
    given = {
        k: v.requires_grad_() for k, v in stacks(rng, OBJECTIVES["simclr"]).items()
    }
    terms = combined_loss(OBJECTIVES["simclr"], **given, equivariance_weight=0)
    invariant, equivariant = gradient_norms(terms, given.values())
    assert invariant > 0
    assert math.isnan(equivariant)
    terms.total.backward()  # The graph is still there.


@pytest.mark.parametrize("weight", [-0.1, 1.1, math.nan, math.inf])
def test_weights_outside_the_unit_interval_are_refused(weight, rng):
    given = stacks(rng, OBJECTIVES["simclr"])
    with pytest.raises(ConfigError, match="equivariance weight is"):
        combined_loss(OBJECTIVES["simclr"], **given, equivariance_weight=weight)


def test_embeddings_that_do_not_fit_are_refused(rng):
    simclr, mmcr = OBJECTIVES["simclr"], OBJECTIVES["mmcr"]
    given = stacks(rng, mmcr)
    with pytest.raises(DataError, match="takes no embeddings of momentum"):
        combined_loss(simclr, **given, equivariance_weight=0.5)
    del given["momentum_equivariant"]
    with pytest.raises(DataError, match="needs embeddings of momentum"):
        combined_loss(mmcr, **given, equivariance_weight=0.5)
    three = torch.ones(3, 6, 5)
    with pytest.raises(DataError, match=r"\(3, 6, 5\).*1A, 1B, 2A, 2B"):
        combined_loss(simclr, three, three, 0.5)


def test_a_name_is_registered_once():
    with pytest.raises(ConfigError, match="an objective 'simclr' already"):
        register_objective(Objective("simclr", barlow_twins, (8,)))


# -- Processes ------------------------------------------------------------------------


class Alike:
    """A group of two processes that hold the same rows, one of which is this one."""

    def __init__(self, rank):
        self.rank = lambda: rank

    def size(self):
        return 2


@pytest.fixture(params=[0, 1])
def alike(request, monkeypatch):
    def all_gather(parts, rows, group):
        for rank, part in enumerate(parts):
            # But for shares, which are numbers of processes here.
            part.copy_(rows if rows.is_floating_point() else rows - group.rank() + rank)

    def all_reduce(total, group):
        total.mul_(group.size())

    monkeypatch.setattr(distributed.dist, "all_gather", all_gather)
    monkeypatch.setattr(distributed.dist, "all_reduce", all_reduce)
    return Alike(request.param)


@pytest.mark.parametrize("gradient_shares", [1, 2])
@pytest.mark.parametrize("shape", [(6, 4), (4, 30)])
@pytest.mark.parametrize("name", AUTHORS)
def test_processes_that_hold_the_same_rows_do_as_one_that_holds_them_twice(
    name, shape, gradient_shares, rng, alike
):
    objective = OBJECTIVES[name]
    given = stacks(rng, objective, *shape)
    layer = nn.Linear(shape[1], shape[1]).double()
    found = []
    for group, times in ((alike, 1), (None, 2)):
        rows = {k: layer(v).repeat(1, times, 1) for k, v in given.items()}
        terms = combined_loss(
            objective,
            **rows,
            equivariance_weight=0.3,
            gradient_shares=gradient_shares,
            group=group,
        )
        norms = gradient_norms(terms, layer.parameters(), group=group)
        gradients = torch.autograd.grad(terms.total, layer.parameters())
        found.append((terms.total.detach(), torch.tensor(norms), *gradients))
    for joined, twice in zip(*found, strict=True):
        torch.testing.assert_close(joined, twice, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(
    "term", [ParameterPrediction, functools.partial(EmbeddingPrediction, loss=simclr)]
)
def test_terms_of_their_own_join_processes_too(term, alike):
    torch.manual_seed(0)
    made = term(8)
    for parameter in made.parameters():
        nn.init.normal_(parameter, std=0.3)
    embeddings = torch.randn(4, 10, 8, requires_grad=True)
    parameters = torch.randn(10, 2, len(PARAMETER_NAMES))
    found = []
    for group, times in ((alike, 1), (None, 2)):
        loss = made(
            embeddings.repeat(1, times, 1), parameters.repeat(times, 1, 1), group
        )
        found.append((loss, *torch.autograd.grad(loss, embeddings)))
    for joined, twice in zip(*found, strict=True):
        torch.testing.assert_close(joined, twice, rtol=1e-4, atol=1e-6)


def test_the_share_of_a_gradient_is_that_of_its_weighted_length():
    assert gradient_share(0.2, 3.0) == pytest.approx(0.6 / (0.6 + 0.8))
    assert (gradient_share(0.0, 3.0), gradient_share(1.0, 3.0)) == (0, 1)
