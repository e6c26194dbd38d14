"""Breaks the code on purpose, one known failure of trainers and readers at a time, and sees whether its test goes red.

    python tools/mutations.py                  all, some minutes on two cores; --only=NAME for one, repeat for several
    python tools/mutations.py --list

Each mutation replaces one piece of one file in a copy of the project and runs one test there, which passes on the code
as it is. Prints a JSON line a mutation: {"mutation", "test", "red"}. The exit code is 0 when all of them are red.
A mutation whose piece no longer stands in its file, once, is an error: tests/test_mutations.py sees that at once.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

os.environ.setdefault("JAX_PLATFORMS", "cpu")

from fgrpo_jax import command

ROOT = Path(__file__).resolve().parents[1]
COPIED = ("fgrpo_jax", "configs", "tests", "tools", "pyproject.toml", "README.md", "docs")


@dataclasses.dataclass(frozen=True)
class Mutation:
    """One way to be wrong without noticing.

    Attributes:
      name: the failure.
      file: what is changed, from the project's root.
      old, new: the piece and what takes its place.
      test: pytest's name of the test that must see it.
    """

    name: str
    file: str
    old: str
    new: str
    test: str


MUTATIONS = (
    Mutation(
        "padding of the prompt is read by completions",
        "fgrpo_jax/model/text.py",
        "theirs = Keys(shared.k, shared.v, prefix_mask)",
        "theirs = Keys(shared.k, shared.v, prefix_mask | True)",
        "tests/test_learner.py::test_amount_and_content_of_padding_change_nothing",
    ),
    Mutation(
        "temperature divides logits in the learner alone",
        "fgrpo_jax/rollout/distribution.py",
        "scores = scores if self.greedy else scores / self.temperature",
        "scores = scores * 1.0",
        "tests/test_sampler_model.py::test_log_probs_equal_those_of_the_learner",
    ),
    Mutation(
        "each micro-batch normalises by its own tokens",
        "fgrpo_jax/fgrpo/learner.py",
        "            normaliser=normaliser,\n            clip_low",
        "            normaliser=self._normaliser(batch.rollouts) * config.micro_batches,\n            clip_low",
        "tests/test_learner.py::test_number_of_micro_batches_changes_nothing",
    ),
    Mutation(
        "constant groups are told by a small epsilon",
        "fgrpo_jax/fgrpo/advantages.py",
        "live = (count >= 2) & (highest != lowest)",
        "live = count >= 2",
        "tests/test_advantages.py::test_advantages",
    ),
    Mutation(
        "advantages meet the wrong prompts",
        "fgrpo_jax/fgrpo/learner.py",
        "forward.split(adv.total, **work)",
        "forward.split(jnp.roll(adv.total, 1, axis=0), **work)",
        "tests/test_learner.py::test_order_of_prompts_changes_nothing",
    ),
    Mutation(
        "tokens after the end count",
        "fgrpo_jax/rollout/loop.py",
        "mask=_write(rows.mask, alive, column, keep=keep)",
        "mask=_write(rows.mask, alive | True, column, keep=keep)",
        "tests/test_sampler.py::test_mask_ends_at_the_first_eos_of_either_kind",
    ),
    Mutation(
        "members of a group share their noise",
        "fgrpo_jax/rollout/noise.py",
        "members = jnp.arange(group_size, dtype=jnp.uint32)[None, :, None]",
        "members = jnp.zeros(group_size, dtype=jnp.uint32)[None, :, None]",
        "tests/test_sampler.py::test_noise_depends_on",
    ),
    Mutation(
        "the noise does not know the token",
        "fgrpo_jax/rollout/noise.py",
        "jax.random.gumbel(jax.random.fold_in(key, t), (vocab,), jnp.float32)",
        "jax.random.gumbel(key, (vocab,), jnp.float32)",
        "tests/test_sampler.py::test_noise_depends_on",
    ),
    Mutation(
        "the log-ratio of the KL is not clamped",
        "fgrpo_jax/fgrpo/losses.py",
        "jnp.clip(jnp.where(mask, reference - logp.astype(dtype), 0), -clamp, clamp)",
        "jnp.where(mask, reference - logp.astype(dtype), 0)",
        "tests/test_losses.py::test_losses",
    ),
    Mutation(
        "multipliers fall while their constraint is violated",
        "fgrpo_jax/fgrpo/multipliers.py",
        "* (jnp.asarray(threshold, mean.dtype) - mean)",
        "* (mean - jnp.asarray(threshold, mean.dtype))",
        "tests/test_learner.py::test_multipliers_means_and_shares_are_those_of_the_equations",
    ),
    Mutation(
        "masked rollouts enter the mean of their constraint",
        "fgrpo_jax/fgrpo/multipliers.py",
        "applicable = jnp.sum(mask, axis=(1, 2), dtype=jnp.int32)",
        "applicable = jnp.sum(mask | True, axis=(1, 2), dtype=jnp.int32)",
        "tests/test_learner.py::test_multipliers_means_and_shares_are_those_of_the_equations",
    ),
    Mutation(
        "advantages use λ(t + 1)",
        "fgrpo_jax/fgrpo/learner.py",
        "self.mix(signals, state.lam, penalty",
        "self.mix(signals, state.lam + 0.05, penalty",
        "tests/test_learner.py::test_multipliers_means_and_shares_are_those_of_the_equations",
    ),
    Mutation(
        "truncated rollouts count under the overlong mask",
        "fgrpo_jax/fgrpo/learner.py",
        "return rollouts.mask & rollouts.finished[..., None]",
        "return rollouts.mask",
        "tests/test_learner_losses.py::test_a_batch_of_truncated_rollouts_under_the_overlong_mask_gives_a_zero_update",
    ),
    Mutation(
        "a group is dead as soon as its reward is constant",
        "fgrpo_jax/rewards/groups.py",
        "still &= constant(values[row], mask[row])",
        "still &= True",
        "tests/test_dead_groups.py::test_dead_only_when_the_reward_and_every_constraint_in_force_are_constant",
    ),
    Mutation(
        "logits of all positions stand in memory at once",
        "fgrpo_jax/model/vocabulary.py",
        "ROOM = 1 << 25",
        "ROOM = 1 << 29",
        "tests/test_learner_memory.py::test_no_wide_buffer_and_no_growth_with_the_vocabulary",
    ),
    Mutation(
        "what a bfloat16 weight loses is forgotten",
        "fgrpo_jax/fgrpo/optimizer.py",
        "{path: low for path, (_, low) in halves.items()}",
        "{path: low * 0 for path, (_, low) in halves.items()}",
        "tests/test_trained.py::test_bfloat16_halves_follow_the_float32_run_bit_for_bit",
    ),
    Mutation(
        "a gradient that is not finite is applied",
        "fgrpo_jax/fgrpo/optimizer.py",
        "finite = jnp.isfinite(norm)",
        "finite = jnp.isfinite(norm) | True",
        "tests/test_learner.py::test_a_gradient_that_is_not_finite_is_skipped_and_counted",
    ),
    Mutation(
        "options stay in the published order, the right one first",
        "fgrpo_jax/data/sets/readers/texts.py",
        '    places.sort(key=lambda place: hashlib.blake2b(f"{name}\\0{place}".encode(), digest_size=8).digest())\n',
        "",
        "tests/test_sets.py::test_sat_right_answer_is_published_first_and_moved",
    ),
    Mutation(
        "both rotations of a question are the same",
        "fgrpo_jax/data/sets/readers/texts.py",
        "places[(at + rotation) % len(places)]",
        "places[at]",
        "tests/test_sets.py::test_sat_real_stands_in_two_rotations",
    ),
    Mutation(
        "answers that count from 0 are read as from 1",
        "fgrpo_jax/data/sets/readers/benchmarks.py",
        "answer=LETTERS[place],",
        "answer=LETTERS[place - 1],",
        "tests/test_sets.py::test_omnispatial_answers_count_from_zero_and_names_are_ambiguous",
    ),
    Mutation(
        "wrong published labels are kept",
        "fgrpo_jax/data/sets/readers/benchmarks.py",
        "MMVP_CORRECTED.get(number, answer)",
        "answer",
        "tests/test_sets.py::test_mmvp_header_typo_and_corrected_labels",
    ),
    Mutation(
        "boxes in 0..1 pass for pixels",
        "fgrpo_jax/data/sets/readers/layout.py",
        "return x1 * width, y1 * height, x2 * width, y2 * height",
        "return x1, y1, x2, y2",
        "tests/test_sets.py::test_vgr_pseudo_boxes_become_pixels",
    ),
    Mutation(
        "an image of the same base name will do",
        "fgrpo_jax/data/sets/readers/records.py",
        "if file.parts[-len(wanted) :] == wanted",
        "if file.name == wanted[-1]",
        "tests/test_sets.py::test_an_image_lies_deeper_but_never_somewhere_else",
    ),
    Mutation(
        "image paths may climb out of the root",
        "fgrpo_jax/data/sets/readers/records.py",
        ' or ".." in parts.parts',
        "",
        "tests/test_bad_data.py::test_error_names_file_and_row",
    ),
    Mutation(
        "a shard that was cut short counts",
        "fgrpo_jax/data/sets/shards.py",
        ' and job.file.stat().st_size == note["size"]',
        "",
        "tests/test_prepare.py::test_a_shard_that_was_cut_short_or_made_of_other_rows_is_written_again",
    ),
    Mutation(
        "boxes of every member of a mix count",
        "fgrpo_jax/data/sets/mix.py",
        "return example if member.boxes else without_boxes(example)",
        "return example",
        "tests/test_mix.py::test_counts_masks_and_no_example_twice",
    ),
    Mutation(
        "a mix holds out what it trains on",
        "fgrpo_jax/data/sets/mix.py",
        "else order[count:]",
        "else order[:count]",
        "tests/test_mix.py::test_what_is_held_out_is_never_trained_on",
    ),
    Mutation(
        "log-probs are those of the uncut distribution",
        "fgrpo_jax/rollout/loop.py",
        "jnp.take_along_axis(jax.nn.log_softmax(scores), token",
        "jnp.take_along_axis(jax.nn.log_softmax(logits), token",
        "tests/test_sampler.py::test_log_probs_are_of_the_sampled_distribution",
    ),
    Mutation(
        "every step draws the same noise",
        "fgrpo_jax/rollout/noise.py",
        "np.array([seed, number, step], np.uint32)",
        "np.array([seed, number, 0], np.uint32)",
        "tests/test_sampler.py::test_noise_depends_on",
    ),
    Mutation(
        "the prompt with most living rows loses one when rows are moved",
        "fgrpo_jax/rollout/compaction.py",
        "jnp.max(jnp.where(alive, rank + 1, 0))",
        "jnp.max(jnp.where(alive, rank, 0))",
        "tests/test_compaction.py::test_living_rows_take_the_first_places_of_their_prompt",
    ),
    Mutation(
        "a multiplier leaves its bounds",
        "fgrpo_jax/fgrpo/multipliers.py",
        "return jnp.clip(lam + lr * violation, lam_min, lam_max)",
        "return lam + lr * violation",
        "tests/test_multiplier_rules.py::test_bounds_of_the_linear_rule",
    ),
    Mutation(
        "a multiplier moves on fewer rollouts than its minimum",
        "fgrpo_jax/fgrpo/multipliers.py",
        "enough = applicable >= jnp.maximum(jnp.asarray(min_applicable, applicable.dtype), 1)",
        "enough = applicable >= 1",
        "tests/test_multiplier_rules.py::test_the_minimum_is_of_the_window_and_a_broken_step_enters_none",
    ),
    Mutation(
        "a softmax over nothing is not a number",
        "fgrpo_jax/model/attention.py",
        "safe = jnp.where(total == 0.0, 1.0, total)",
        "safe = total",
        "tests/test_model_attention.py::test_equals_one_softmax",
    ),
    Mutation(
        "all keys are scored at once",
        "fgrpo_jax/model/attention.py",
        "BLOCK = 512",
        "BLOCK = 1 << 20",
        "tests/test_rollout_memory.py::test_no_buffer_grows_as_the_square_of_a_length",
    ),
    Mutation(
        "skipped updates are never counted in a row",
        "fgrpo_jax/fgrpo/learner.py",
        "skipped = jnp.where(done.finite, 0, skipped + 1)",
        "skipped = jnp.where(done.finite, 0, 1)",
        "tests/test_learner.py::test_skipped_updates_in_a_row_are_counted_until_one_succeeds",
    ),
)


def problem(mutation: Mutation) -> str | None:
    """Why a mutation cannot be made, or None."""
    path, (file, _, test) = ROOT / mutation.file, mutation.test.partition("::")
    count = path.read_text().count(mutation.old) if mutation.old and path.exists() else 0
    if count != 1:
        return f"its piece stands {count} times in {mutation.file}"
    if f"def {test}(" not in (ROOT / file).read_text():
        return f"there is no test {mutation.test}"
    return None


def turns_red(mutation: Mutation) -> bool:
    """Whether the test fails in a copy of the project with the mutation.

    Raises:
      ValueError: the mutation cannot be made.
      RuntimeError: pytest neither passed nor failed.
    """
    if why := problem(mutation):
        raise ValueError(f"mutation '{mutation.name}': {why}; bring tools/mutations.py up to date")
    with tempfile.TemporaryDirectory(prefix="fgrpo-mutation-") as scratch:
        for name in COPIED:
            source, target = ROOT / name, Path(scratch) / name
            leave = shutil.ignore_patterns("__pycache__", ".pytest_cache")
            shutil.copytree(source, target, ignore=leave) if source.is_dir() else shutil.copy(source, target)
        file = Path(scratch) / mutation.file
        file.write_text(file.read_text().replace(mutation.old, mutation.new))
        command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", mutation.test]
        environment = os.environ | {"PYTHONPATH": scratch}
        done = subprocess.run(command, cwd=scratch, env=environment, capture_output=True, text=True, check=False)
    if done.returncode not in (0, 1):
        raise RuntimeError(f"pytest ended with {done.returncode}: {' '.join(command)}\n{done.stdout[-2000:]}")
    return done.returncode == 1


def parser() -> argparse.ArgumentParser:
    """Flags of this tool."""
    out = command.parser(__doc__)
    out.add_argument("--only", action="append", metavar="NAME", help="this mutation; repeat for several")
    out.add_argument("--list", action="store_true", help="print the names and run nothing")
    return out


def main(args: argparse.Namespace) -> int:
    """Tries them; 1 when any stayed green."""
    known = {mutation.name: mutation for mutation in MUTATIONS}
    for name in args.only or ():
        if name not in known:
            raise ValueError(f"no mutation '{name}'; there are: {'; '.join(known)}")
    green = 0
    for mutation in [known[name] for name in args.only] if args.only else MUTATIONS:
        if args.list:
            print(f"{mutation.name}  ({mutation.file} → {mutation.test})")
            continue
        began = time.perf_counter()
        red = turns_red(mutation)
        green += not red
        print(json.dumps({"mutation": mutation.name, "test": mutation.test, "red": red}), flush=True)
        print(f"  {time.perf_counter() - began:.0f} s", file=sys.stderr, flush=True)
    return int(green > 0)


if __name__ == "__main__":
    raise SystemExit(command.run(main, parser()))
