"""The combined loss against its definition, its ends and its gradient norms."""

import dataclasses
import functools
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from ce_align.errors import ConfigError, DataError
from ce_align.trainer.objectives import OBJECTIVES, combined_loss, gradient_norms


def stacks(rng, objective, n=6, d=5):
    """Embeddings as keyword arguments of `combined_loss`."""
    names = ["invariant", "equivariant"]
    if objective.ema is not None:
        names += ["momentum_invariant", "momentum_equivariant"]
    return {k: torch.tensor(rng.standard_normal((4, n, d))) for k in names}


@pytest.mark.parametrize("name", OBJECTIVES)
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


@pytest.mark.parametrize("name", OBJECTIVES)
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


@given(st.floats(0.001, 0.999), st.sampled_from(list(OBJECTIVES)))
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


@pytest.mark.parametrize("name", OBJECTIVES)
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


@pytest.mark.parametrize("name", OBJECTIVES)
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
