"""The checks of a plugin's kind, in order, and their verdicts."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from advss.plugins import Kind
from advss.testing.checks import (
    carried,
    company,
    defenses,
    deployed,
    device,
    doubts,
    evaluations,
    launchers,
    leaves,
    losses,
    options,
    reported,
    schemes,
    sources,
    state,
    views,
)
from advss.testing.ready import ready
from advss.testing.subject import Subject
from advss.testing.verdicts import Check, Told, Verdict, judge

Fact = Callable[[Subject], None]
TASKS: tuple[Kind, ...] = ("pretext", "finetune")  # kinds with views and a loss


def it_is_made(subject: Subject) -> None:
    """From its options, and a task built on the small encoder."""
    if subject.kind in TASKS:
        ready(subject)
    else:
        subject.new()


EVERY: tuple[Fact, ...] = (
    options.its_distribution_is_found_without_fault,
    options.its_docstring_says_what_it_is,
    options.every_option_has_a_type,
    options.every_option_is_documented,
    options.every_default_is_of_its_type,
    options.its_methods_are_named_as_in_the_contract,
    it_is_made,
    options.its_options_pass_through_yaml,
    options.making_it_draws_nothing_and_makes_no_parameters,
    options.its_methods_take_what_core_gives,
)
TASK: tuple[Fact, ...] = (
    views.inputs_are_images_in_0_to_1,
    views.every_input_and_target_has_one_entry_an_image,
    losses.the_loss_is_a_finite_float32_scalar,
    losses.logits_and_metrics_are_of_their_form,
    leaves.it_draws_from_torch_alone,
    leaves.what_it_is_given_is_left_alone,
    views.views_follow_from_the_generator_alone,
    views.views_leave_batch_and_global_generator_alone,
    views.views_move_no_state,
    views.images_and_targets_belong_together,
    views.a_smaller_batch_works,
    losses.the_loss_repeats_at_a_seed,
    losses.the_loss_is_a_mean_over_the_batch,
    losses.what_is_attacked_has_logits_too,
    losses.an_attack_moves_no_state,
    losses.gradient_reaches_every_input,
    losses.its_gradient_is_that_of_its_value,
    doubts.gradient_reaches_every_image,
    losses.freezing_changes_neither_loss_nor_gradient,
    state.parameters_are_registered,
    state.the_encoder_is_not_kept_as_a_part,
    state.parameters_and_buffers_are_made_in_build,
    state.a_loss_is_finite_before_it_has_seen_the_data,
    state.hooks_leave_weights_and_statistics_alone,
    state.its_state_survives_a_checkpoint,
    state.it_can_be_copied,
    device.a_task_works_on_another_device,
    company.the_loss_under_bfloat16_autocast_is_close,
    company.the_loss_in_channels_last_is_the_same,
)
PRETEXT: tuple[Fact, ...] = (
    doubts.its_loss_does_not_change_with_the_labels,
    losses.gradient_reaches_the_encoder,
    losses.gradient_reaches_every_parameter_of_its_own,
    state.its_start_of_fine_tuning_is_the_backbones,
)
FINETUNE: tuple[Fact, ...] = (
    schemes.phases_have_shares_and_known_parameters,
    schemes.the_head_trains,
    schemes.what_it_brings_trains,
    schemes.gradient_reaches_all_that_a_phase_trains,
    deployed.it_leaves_a_plain_classifier_that_answers_alike,
)
DEFENSE: tuple[Fact, ...] = (
    defenses.an_attack_gives_as_many_inputs_of_the_same_form,
    defenses.its_loss_is_finite_and_reaches_every_parameter,
    defenses.attacked_inputs_are_in_0_to_1,
    doubts.an_attack_ascends,
    defenses.an_attack_leaves_the_network_as_found,
    defenses.the_clean_inputs_are_left_alone,
    defenses.attack_and_loss_follow_from_the_generator,
    defenses.it_keeps_nothing_from_step_to_step,
    carried.what_it_carries_is_of_the_inputs_form,
    defenses.the_diversity_term_counts_once,
    defenses.a_task_without_logits_or_labels_is_trained_or_refused,
    defenses.it_trains_in_bfloat16_and_channels_last,
    defenses.it_works_on_another_device,
)
EVALUATION: tuple[Fact, ...] = (
    reported.its_counts_are_whole_numbers,
    reported.its_title_is_one_line,
    reported.options_take_what_the_line_says_of_every_attack,
    evaluations.answers_have_a_row_an_image,
    evaluations.answers_follow_from_the_generator_alone,
    evaluations.model_and_images_are_left_alone,
    evaluations.every_part_goes_on_from_what_the_one_before_gave,
    evaluations.it_keeps_nothing_from_chunk_to_chunk,
    evaluations.smaller_passes_change_no_answer,
    evaluations.an_image_does_not_hang_on_how_the_others_fare,
    evaluations.models_of_few_and_many_classes_are_measured_or_refused,
    evaluations.images_without_a_right_answer_are_measured,
    evaluations.nothing_is_right_under_attack_alone,
    evaluations.it_works_on_another_device,
    reported.its_figures_are_json,
    reported.its_figures_and_parts_have_words,
    reported.its_pictures_can_be_saved,
)
LAUNCHER: tuple[Fact, ...] = (
    launchers.no_jobs_are_no_fault,
    launchers.every_job_runs_once_in_its_folder,
    launchers.none_begins_before_those_it_needs_have_ended,
    launchers.what_fails_keeps_back_only_what_needs_it,
    launchers.the_board_is_told_of_every_job,
    launchers.output_is_added_to_the_log,
    launchers.it_may_launch_again,
    launchers.a_stop_is_heard,
)
DATA: tuple[Fact, ...] = (
    sources.making_it_reads_nothing,
    sources.its_splits_are_there,
    sources.missing_data_are_a_usage_error,
    sources.labels_count_from_0_as_int64,
    sources.classes_are_distinct_names_as_many_as_labels,
    sources.images_are_squares_of_one_side_as_uint8,
    sources.an_image_depends_on_its_place_alone,
    sources.another_object_gives_the_same,
    sources.what_it_passes_over_is_counted_by_kind,
    sources.threads_read_the_same,
    sources.reading_leaves_the_global_generator_and_the_places_alone,
)
OF_KIND: dict[Kind, tuple[Fact, ...]] = {
    "pretext": (*TASK, *PRETEXT),
    "finetune": (*TASK, *FINETUNE),
    "defense": DEFENSE,
    "evaluation": EVALUATION,
    "launcher": LAUNCHER,
    "data": DATA,
}


def checks_of(kind: Kind) -> list[Check]:
    """All checks of a kind; those of tasks are beside every built-in task and under every installed defense, too."""
    checks = [Check(fact.__name__.replace("_", " "), fact) for fact in (*EVERY, *OF_KIND[kind])]
    if kind == "pretext":
        checks += company.checks_in_company()
    if kind in TASKS:
        checks += company.checks_under_defenses(kind)
    return checks


def check(subject: Subject) -> Iterator[Verdict]:
    """Every check of a plugin, one by one; where it cannot be made, the checks end there.

    One with the message of an earlier one names that one instead, so that each cause is told once.
    """
    told = Told()
    for each in checks_of(subject.kind):
        verdict = judge(each, subject)
        yield told.once(verdict)
        if verdict.outcome == "failed" and each.ask is it_is_made:
            return
