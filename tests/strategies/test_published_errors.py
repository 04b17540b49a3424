"""Errors found in published code of these methods, each with the tests here that would catch it.

The numbers are those of the project's method notes (2.12). Every entry names tests that exist; what no test can show says why.
"""

import ast
import pathlib

import pytest
import torch

from latentshift.engine.run import Engine
from latentshift.recipe import get_recipe
from latentshift.space import Uniform
from latentshift.strategies.gradient import IFGSM
from latentshift.testing.oracles import function_pair, refined

TESTS = pathlib.Path(__file__).resolve().parents[1]

#: number -> (where it was seen, what was wrong, the tests that would catch it)
ERRORS = {
    1: (
        "AdvLatGAN qua, z: no ball although Eq. 5 is constrained",
        [
            "strategies/test_gradient.py::test_a_ball_is_never_left",
            "train/test_shifts.py::test_more_steps_stay_in_the_ball_that_the_published_code_lacks",
        ],
    ),
    2: (
        "same: the loss is the mean over the batch, so gradients shrink with it",
        ["test_objective.py::test_gradients_do_not_scale_with_the_batch"],
    ),
    3: (
        "same: the prior's support is not kept; another loss than the critic was trained with",
        [
            "strategies/test_published_errors.py::test_error_3_the_support_is_kept_unless_the_published_form_is_asked_for",
            "test_objective.py::test_sign_steps_are_bit_equal_for_all_links",
        ],
    ),
    4: (
        "same, training: networks in training mode during the inner steps",
        [
            "train/test_shifts.py::test_spectral_norm_takes_no_power_step_inside",
            "train/test_shifts.py::test_batch_statistics_couple_rows_and_running_ones_do_not",
            "train/test_shifts.py::test_climb_leaves_no_trace",
        ],
    ),
    5: (
        "AdvLatGAN div: Eq. 8 as the ratio of two batch means",
        [
            "strategies/test_baselines.py::test_error_5_rows_do_not_share_a_ratio_unless_asked",
            "test_objective.py::test_ratio_is_equation_8",
        ],
    ),
    6: (
        "DOT, Gaussian prior: the tangent projection divides by 11.31 and not by the squared length",
        ["strategies/test_dot.py::test_error_6_gaussian_steps_are_tangent_and_keep_the_length"],
    ),
    7: (
        "DOT: 0.001 added to each coordinate of the distance",
        ["strategies/test_dot.py::test_error_7_the_published_offset_hovers_beside_the_start"],
    ),
    8: (
        "DOT: k is one maximum over 100 pairs",
        [
            "strategies/test_dot.py::test_error_8_k_is_a_mean_of_maxima_with_its_spread",
            "strategies/test_dot.py::test_k_eff_on_the_authors_pair",
        ],
    ),
    9: (
        "DOT, conditional: the optimiser is not passed on, and the transport cost is left out",
        ["strategies/test_dot.py::test_error_9_a_conditional_run_uses_the_optimizer_and_the_transport_cost"],
    ),
    10: (
        "DOT's MH: a wrong calibration statistic, a guard that is always true, a penalised regression",
        [
            "strategies/test_density.py::test_error_10_there_is_no_penalty_and_the_optimum_is_found",
            "metrics/test_calibration.py::test_logistic_is_scikit_learns_without_penalty",
        ],
    ),
    11: (
        "DGflow: batch norm in training mode, an image depends on its batch",
        [
            "test_sampler.py::test_a_model_in_training_mode_is_used_through_an_evaluation_copy",
            "engine/test_run.py::test_rows_of_every_reference_pair_have_the_same_bits_in_any_batch",
        ],
    ),
    12: (
        "DGflow: no prior term; critics without a scale read as logits; factors that broadcast over rows",
        [
            "strategies/test_flow.py::test_error_12_factors_do_not_spread_over_rows",
            "strategies/test_flow.py::test_refusals",
            "strategies/test_flow.py::test_bounded_latents_stay_inside_and_the_prior_can_hold_a_gaussian",
        ],
    ),
    13: (
        "MH-GAN: odds of probabilities, 0/0 accepted; a chain without a move hands back the best sample unmarked",
        [
            "strategies/test_selection.py::test_error_13_extreme_scores_are_compared_in_logits",
            "strategies/test_selection.py::test_a_chain_from_a_real_score_hands_back_no_real_sample_and_marks_rows_without_a_move",
        ],
    ),
    14: (
        "collaborative sampling: a bound of 0 is no bound; D in training mode; DRS's constants from the batch at hand",
        [
            "strategies/test_baselines.py::test_error_14_a_bound_of_zero_is_a_bound",
            "strategies/test_selection.py::test_error_14_constants_do_not_move_with_the_batch",
        ],
    ),
    15: (
        "same, MH: raw odds; neighbouring outputs of one chain",
        ["strategies/test_selection.py::test_error_15_neighbouring_rows_are_not_correlated"],
    ),
    16: (
        "REP-GAN: networks in training mode; unequal counts in the calibration; noise not tied to the step",
        [
            "strategies/test_langevin.py::test_repgan_is_mala_and_ties_its_noise",
            "strategies/test_density.py::test_o17_logistic_calibration_of_two_gaussians",
            "metrics/test_calibration.py::test_logistic_finds_the_true_log_ratio_whatever_the_counts",
        ],
    ),
    17: (
        "Ex2MCMC: the local step after a jump uses the gradient of the old point",
        ["strategies/test_langevin.py::test_error_17_score_and_gradient_are_those_of_the_chosen_point"],
    ),
    18: (
        "Ex2MCMC: noise drawn from the prior; proposals projected; the step size adapts for ever",
        [
            "strategies/test_langevin.py::test_error_18_noise_is_gaussian_and_walls_refuse",
            "strategies/test_langevin.py::test_burn_in_adapts_each_row_and_then_stops",
        ],
    ),
    19: (
        "a DDLS notebook: gradients add up over steps; refused steps are not repeated",
        [
            "strategies/test_langevin.py::test_error_19_no_gradient_is_summed_up_over_steps",
            "strategies/test_langevin.py::test_o6_acceptance_ratio_is_the_closed_form",
        ],
    ),
    20: (
        "OBRS's code: NaN in DRS; rates below 1 / M silently raised",
        [
            "strategies/test_selection.py::test_error_20_rates_below_one_over_m_are_reached",
            "strategies/test_selection.py::test_drs_follows_its_formula_with_constants_of_the_pilot",
        ],
    ),
    21: (
        "polarity: the product of singular values in linear scale, clipped; resampling without replacement",
        ["strategies/test_baselines.py::test_error_21_weights_of_many_singular_values_do_not_saturate"],
    ),
    22: (
        "diagonal CMA's defaults: all samples start at zero",
        ["strategies/test_cma.py::test_error_22_rows_start_at_their_own_latent"],
    ),
    23: (
        "in general: a sigmoid applied twice; noise sqrt(eps) for sqrt(2 eps); the prior tempered",
        [
            "test_objective.py::test_a_probability_is_read_before_its_sigmoid",
            "strategies/test_langevin.py::test_o3_noise_is_its_own_option",
            "strategies/test_langevin.py::test_temperature_is_not_the_priors",
        ],
    ),
}


def asks(function):
    """Whether a test's text holds a demand."""
    for node in ast.walk(function):
        if isinstance(node, ast.Assert) or (isinstance(node, ast.Call) and "assert" in ast.unparse(node.func)):
            return True
        if isinstance(node, ast.With) and "raises" in ast.unparse(node.items[0]):
            return True
    return False


@pytest.mark.parametrize("number", range(1, 24))
def test_every_error_has_a_test_that_exists(number):
    what, tests = ERRORS[number]
    assert what
    for test in tests:
        file, _, name = test.partition("::")
        tree = ast.parse((TESTS / file).read_text("utf-8"))
        found = [n for n in tree.body if isinstance(n, ast.FunctionDef) and n.name == name]
        assert found, test
        helpers = {n.name: n for n in tree.body if isinstance(n, ast.FunctionDef) and not n.name.startswith("test")}
        called = {ast.unparse(n.func) for n in ast.walk(found[0]) if isinstance(n, ast.Call)}
        assert any(asks(f) for f in (found[0], *(helpers[c] for c in called & set(helpers)))), f"{test} asks nothing"


def test_error_3_the_support_is_kept_unless_the_published_form_is_asked_for():
    pair = function_pair(lambda x: x.sum(1), 2, Uniform())
    points, _ = refined(IFGSM(steps=20, step_size=0.2, eps=None), pair, 64)
    assert float(points.abs().max()) <= 1
    published = get_recipe("advlatgan-z/stl10").changed(steps=20, step_size=0.2).build()
    free = Engine(published, pair).run(torch.zeros(8, 2), range(8))
    assert float(torch.from_numpy(free.chunks[0].point).min()) > 3.9
