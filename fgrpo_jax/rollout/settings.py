"""Settings of the sampler: a section of the config."""

from __future__ import annotations

import dataclasses

from fgrpo_jax.fields import COUNT, FRACTION, POSITIVE, AtLeast, Between, MoreThan, field


@dataclasses.dataclass(frozen=True)
class Sampling:
    """How completions are drawn, and how far sampler and learner may differ.

    Δp = |exp(logp of the sampler) − exp(logp of the learner)| a token says whether the two run the same model.
    """

    group_size: int = field(5, "G, completions a prompt.", AtLeast(2))
    max_new_tokens: int = field(1024, "T. A completion that has not ended by then counts as truncated.", AtLeast(2))
    temperature: float = field(1.0, "Divides logits in sampler and learner alike. The paper does not state it.", POSITIVE)
    top_p: float = field(1.0, "Training refuses anything but 1, since the learner sees the full distribution.", MoreThan(0), Between(0, 1))
    top_k: int = field(0, "0 is off. Training refuses anything else.", AtLeast(0))
    min_p: float = field(0.0, "Keeps ids at least this share as likely as the likeliest. Training refuses anything but 0.", FRACTION)
    repetition_penalty: float = field(1.0, "Of ids that prompt or completion hold. Training refuses anything but 1.", POSITIVE)
    min_new_tokens: int = field(0, "No EOS and no stop text ends a completion before this many. Training refuses anything but 0.", AtLeast(0))
    stop: tuple[str, ...] = field((), "Texts that end a completion besides EOS, such as '</answer>'.")
    compact: bool = field(False, "As completions end, the others move to smaller batches. Tokens are the same; see docs/rollouts.md.")
    batch_prompts: int = field(16, "Prompts a sampler call. It divides data.prompts_per_step.", COUNT)
    ahead: int = field(0, "1: rollouts of the next step are drawn while this one is judged and learnt from. It needs algorithm.importance_cap; docs/training.md.", Between(0, 1))
    logp_max_warn: float = field(0.005, "float32 compute: warn when the largest Δp of a step exceeds this.", POSITIVE)
    logp_max_stop: float = field(0.01, "float32 compute: stop the run above this.", POSITIVE)
    logp_mean_warn: float = field(0.01, "bfloat16 compute: warn when the mean Δp of a step exceeds this.", POSITIVE)
    logp_mean_stop: float = field(0.05, "bfloat16 compute: stop the run when the mean Δp exceeds this for logp_patience steps in a row.", POSITIVE)
    logp_patience: int = field(3, "Steps in a row that logp_mean_stop waits for.", COUNT)
