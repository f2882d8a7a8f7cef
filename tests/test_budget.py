"""Steering to a budget, without a model around it."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
import torch

from thresher import UserError
from thresher.pruners.threshold import Threshold
from thresher.pruners.topk import TopK
from thresher.training.budget import BudgetController
from thresher.training.fit import check_reachable, fit_budget


def controller(budget: float | None = 0.5, soft_share: float = 0.5) -> BudgetController:
    budgets = [] if budget is None else [budget]
    return BudgetController(soft_share, budgets, regularizer=0.2, temperatures=(0.4, 0.1))


def trace(ratio: float, gate: float = 0.5) -> SimpleNamespace:
    return SimpleNamespace(
        flops=torch.tensor([100 * ratio], requires_grad=True),
        dense_flops=torch.tensor([100.0]),
        mean_gate=torch.tensor(gate),
        kept_share=ratio,
    )


def step(
    control: BudgetController, pruner: torch.nn.Module, at: int, ratio: float, steps: int = 100
) -> float:
    state = SimpleNamespace(global_step=at, max_steps=steps)
    model = SimpleNamespace(pruner=pruner, rung=0, soft=None)
    control.on_step_begin(None, state, None, model=model)
    control.model = model  # for the tests to look at
    penalty = float(torch.as_tensor(control.penalty(trace(ratio))).detach())
    control.on_optimizer_step(None, state, None, model=model)
    return penalty


def test_soft_then_hard():
    control, pruner = controller(), Threshold(3, 8)
    step(control, pruner, 0, 1.0)
    assert control.model.soft.temperature == pytest.approx(0.4)
    assert control.target == pytest.approx(1.0)
    step(control, pruner, 16, 1.0)
    assert control.target == pytest.approx(1 - 0.5 * 3 * 16 / 49)  # a third of the way it is there
    step(control, pruner, 49, 1.0)
    assert control.model.soft.temperature == pytest.approx(0.1)
    assert control.target == 0.5
    step(control, pruner, 50, 1.0)
    assert control.model.soft is None
    assert control.log()["stage"] == "hard"


def test_a_text_counts_in_the_ratio_by_its_weight():
    control, pruner = controller(), Threshold(3, 8)
    two = trace(0.5)
    two.flops, two.dense_flops = torch.tensor([20.0, 180.0]), torch.tensor([100.0, 200.0])
    state = SimpleNamespace(global_step=0, max_steps=100)
    model = SimpleNamespace(pruner=pruner, rung=0, soft=None)
    control.on_step_begin(None, state, None, model=model)
    control.penalty(two, torch.tensor([3.0, 1.0]))
    control.on_optimizer_step(None, state, None, model=model)
    assert control.smoothed == [pytest.approx((3 * 20 + 180) / (3 * 100 + 200))]


def test_the_target_starts_where_the_first_batch_is():
    """Gates that are wide at first are not at the budget themselves; a resumed run knows where they were."""
    control, pruner = controller(), Threshold(3, 8)
    step(control, pruner, 0, 0.8)
    assert control.target == pytest.approx(0.8)
    step(control, pruner, 8, 0.6)
    assert 0.62 < control.target < 0.68
    again = BudgetController.from_state(control.state())
    step(again, pruner, 8, 0.6)
    assert again.target == control.target


def test_pull_grows_while_over_budget_and_turns_when_under():
    control, pruner = controller(), Threshold(3, 8)
    pulls = [step(control, pruner, 40, 0.8) for _ in range(10)]
    assert pulls == sorted(pulls)
    assert pulls[-1] > pulls[0] > 0
    for _ in range(200):
        step(control, pruner, 40, 0.2)
    assert control.multiplier[0] < 0


def test_penalty_gradient_points_down():
    control = controller()
    step(control, Threshold(3, 8), 40, 0.9)
    found = trace(0.9)
    control.penalty(found).backward()
    assert found.flops.grad.item() > 0


def test_without_budget_the_papers_regulariser():
    control = controller(budget=None)
    assert step(control, Threshold(3, 8), 0, 1.0) == pytest.approx(0.2 * 0.5)
    thresholds = Threshold(3, 8)
    thresholds.thresholds.fill_(1.0)
    step(control, thresholds, 80, 0.9)
    assert thresholds.thresholds.tolist() == [1.0, 1.0, 1.0]


@pytest.mark.parametrize("ratio", [0.3, 0.8])
def test_hard_stage_moves_all_thresholds_by_one_factor(ratio):
    control, pruner = controller(), Threshold(3, 8)
    pruner.thresholds.copy_(torch.tensor([0.5, 1.0, 2.0]))
    step(control, pruner, 60, ratio)
    factors = pruner.thresholds / torch.tensor([0.5, 1.0, 2.0])
    assert torch.allclose(factors, factors[:1].expand(3))
    assert (factors[0] > 1) == (ratio > 0.5)


def test_every_rung_is_steered_to_its_own_budget_in_turn():
    control = BudgetController(0.5, [0.7, 0.3], regularizer=0.0, temperatures=(0.4, 0.1))
    pruner = Threshold(3, 8, budgets=[0.7, 0.3])
    for at in range(40, 50):
        step(control, pruner, at, 0.5)
        assert control.model.rung == at % 2
        assert control.target == pytest.approx((0.7, 0.3)[at % 2])
    assert control.multiplier[0] < 0 < control.multiplier[1]
    pruner.table.data[:] = 1.0
    again = BudgetController.from_state(control.state())
    for at in range(50, 60):
        step(again, pruner, at, 0.5)
    assert (pruner.table[0] < 1).all()
    assert (pruner.table[1] > 1).all()
    for at in range(60, 64):
        step(control, pruner, at, 0.5)
    assert control.score(80.0, [0.71, 0.31], 90) == 80.0
    assert control.score(80.0, [0.6, 0.4], 90) < 0


def test_a_rung_of_a_ladder_moves_on_as_fast_as_one_alone():
    ends = []
    for budgets in ([0.5], [0.5] * 5):
        pruner = Threshold(3, 8, budgets=budgets)
        control = BudgetController(0.5, budgets, regularizer=0.0, temperatures=(0.4, 0.1))
        pruner.table.data[:] = 1.0
        for at in range(40, 60):  # the second half of them is hard
            step(control, pruner, at, 0.6)
        before, threshold = control.smoothed[0], pruner.table[0, 0].item()
        for at in range(60, 65):
            step(control, pruner, at, 0.8)
        moved = (control.smoothed[0] - before) / (0.8 - before)
        ends.append((control.multiplier[0], threshold, moved))
    assert ends[0] == pytest.approx(ends[1])
    assert ends[0][0] > 0
    assert ends[0][1] > 1.1


@pytest.mark.parametrize(
    ("drops", "live"),
    [
        ([0.3, 0.1, 1.9, 5.0], [0, 2]),  # 0.5 loses less than a point, and 0.35 more
        ([0.3, 0.1, 3.0, 1.0], [2, 3]),  # all of them may
        ([3.0, 0.1, 3.0, 5.0], [1, 0]),
        ([3.0, 3.0, 3.0, 5.0], [1, 0]),  # none may: the mildest are the nearest
    ],
)
def test_a_ladder_for_a_drop_is_narrowed_to_where_the_bound_is(drops, live):
    budgets = [0.5, 0.7, 0.35, 0.2]  # out of order
    control = BudgetController(0.5, budgets, regularizer=0.0, temperatures=(0.4, 0.1))
    pruner = Threshold(3, 8, budgets=budgets)
    for at in (40, 51, 60):  # in the soft stage, and while rungs come to their budgets
        step(control, pruner, at, 0.5)
        control.narrow(dict(enumerate(drops)), 1.0)
        assert control.live == [0, 1, 2, 3]
    step(control, pruner, 66, 0.5)
    control.narrow(dict(enumerate(drops)), 1.0)
    assert control.live == live
    again = BudgetController.from_state(control.state())
    for at in range(66, 76):
        step(again, pruner, at, 0.5)
        assert again.model.rung == live[at % 2]
    assert again.score(80.0, [budgets[rung] for rung in live], 70) == 80.0
    assert again.score(80.0, [budgets[rung] + 0.1 for rung in live], 70) < 0
    assert again.log()["target"] == pytest.approx(sum(budgets[rung] for rung in live) / 2, abs=1e-4)
    again.narrow(dict.fromkeys(live, 9.0), 1.0)
    assert again.live == live


def test_state_survives_a_checkpoint():
    control, pruner = controller(), Threshold(3, 8)
    for _ in range(5):
        step(control, pruner, 30, 0.9)
    again = BudgetController.from_state(control.state())
    assert (again.multiplier, again.smoothed) == (control.multiplier, control.smoothed)
    assert step(again, pruner, 31, 0.7) == step(control, pruner, 31, 0.7)


def test_resumed_at_the_border_of_the_stages():
    """The first hard step starts measuring anew, resumed or not."""
    control, pruner = controller(), Threshold(3, 8)
    for _ in range(5):
        step(control, pruner, 49, 0.9)
    again = BudgetController.from_state(control.state())
    for one in (control, again):
        step(one, pruner, 50, 0.7)
        assert one.smoothed == [pytest.approx(0.7)]


def test_the_best_checkpoint_is_a_hard_model_within_the_budget():
    control, pruner = controller(), Threshold(3, 8)
    step(control, pruner, 10, 0.5)
    early = control.score(99.0, [1.0], 10)
    step(control, pruner, 40, 0.5)
    late = control.score(70.0, [0.5], 40)
    step(control, pruner, 51, 0.5)  # dropping has only begun
    begun = control.score(99.0, [0.5], 51)
    step(control, pruner, 89, 0.5)
    good, over, far_over = (control.score(q, [r], 90) for q, r in ((80.0, 0.51), (95.0, 0.6), (95.0, 0.9)))
    assert good > over > far_over > begun > late > early


def test_without_a_budget_no_checkpoint_is_too_young():
    control, pruner = BudgetController(0.0, [], 0.0, (0.4, 0.1)), Threshold(3, 8)
    step(control, pruner, 5, 0.5)
    assert control.score(80.0, [0.5], 6) == 80.0


def test_a_budget_out_of_reach_is_refused_before_training():
    pruner = TopK(6, 8)
    slope = pruner.slope.clone()
    with pytest.raises(UserError, match="out of reach"):
        check_reachable(pruner, lambda: 0.7, 0.5)
    check_reachable(pruner, lambda: 0.3, 0.5)
    assert torch.equal(pruner.slope, slope)


@pytest.mark.parametrize("start", [1e-3, 0.5, 40.0])
@pytest.mark.parametrize("budget", [0.2, 0.5, 0.9])
def test_fit_reaches_the_budget_from_anywhere(start, budget):
    pruner = Threshold(2, 8)
    pruner.thresholds.fill_(start)
    ratio = fit_budget(pruner, lambda: math.exp(-float(pruner.thresholds[0])), budget)
    assert budget - 0.01 <= ratio <= budget
    assert math.exp(-float(pruner.thresholds[0])) == pytest.approx(ratio)


def test_fit_ends_under_the_budget_where_the_ratio_jumps():
    pruner = Threshold(2, 8)
    pruner.thresholds.fill_(1.0)
    assert fit_budget(pruner, lambda: 0.8 if pruner.thresholds[0] < 3 else 0.3, 0.5) == 0.3


def test_fit_says_when_a_budget_is_out_of_reach():
    with pytest.raises(UserError, match=r"0\.70.*dense_layers"):
        fit_budget(TopK(6, 8), lambda: 0.7, 0.5)
