"""Stop sequences, as a table from (how much of one has been read, token) to the same after the token.

A text such as '</answer>' has many tokenisations, and its first or last byte may lie inside a token that says more. So
the match is over bytes: an automaton (Aho & Corasick 1975) whose state is the longest beginning of a stop sequence that
the completion's bytes end with, run on the host over the bytes of every token once, from every state. On the device a
step is one look-up a rollout.

Exact: a rollout stops at the first token with which the bytes of its drawn tokens contain a stop sequence. What that
token says beyond the sequence stays in it, since tokens are not cut. Ids that end a completion say nothing, as in the
decoded text. The prompt, prefilled text included, takes no part: a stop sequence must have been drawn whole.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np


@dataclasses.dataclass(frozen=True, eq=False)
class StopTable:
    """The automaton of one tokenizer and one set of stop sequences; state 0 has read nothing of any."""

    table: np.ndarray  # int [states, V], twice the state after a token, plus one where it completes a stop sequence

    def read(self, state: jax.Array, token: jax.Array) -> tuple[jax.Array, jax.Array]:
        """(state after the token, whether it completes a stop sequence), each [...] like state and token."""
        found = jnp.asarray(self.table)[state, token].astype(jnp.int32)
        return found // 2, found % 2 == 1

    @classmethod
    def build(cls, stops: Sequence[str], token_bytes: Sequence[bytes]) -> StopTable:
        """The table of some stop sequences.

        Args:
          stops: texts that end a completion.
          token_bytes: what each id of the vocabulary says, b'' for those that say nothing (`Processor.token_bytes`).

        Raises:
          ValueError: no stop sequences, an empty one, or one that no row of tokens can say.
        """
        if not stops or not all(stops):
            raise ValueError(f"stop sequences must be texts of at least one character, got {list(stops)}")
        steps, ends = _automaton([text.encode() for text in stops])
        lengths = np.array([len(said) for said in token_bytes])
        after = np.repeat(np.arange(len(steps))[:, None], len(lengths), axis=1)
        hit = np.zeros(after.shape, bool)
        for place in range(max(lengths, default=0)):  # a byte of every token that has so many, at once
            longer = np.flatnonzero(lengths > place)
            read = np.array([token_bytes[int(token)][place] for token in longer])
            after[:, longer] = steps[after[:, longer], read]
            hit[:, longer] |= ends[after[:, longer]]
        spoken = set(b"".join(token_bytes))
        for text in stops:
            if not set(text.encode()) <= spoken:
                raise ValueError(f"stop sequence {text!r} holds a byte that no token of the vocabulary says; drop it")
        table = 2 * after + hit
        return cls(table.astype(np.int16 if table.max() < 2**15 else np.int32))  # megabytes at a vocabulary of 150,000


def _automaton(patterns: Sequence[bytes]) -> tuple[np.ndarray, np.ndarray]:
    """(next state int [states, 256], a pattern ends here bool [states]) of the patterns."""
    steps, ends = [np.full(256, -1)], [False]
    for pattern in patterns:
        at = 0
        for byte in pattern:
            if steps[at][byte] < 0:
                steps[at][byte] = len(steps)
                steps.append(np.full(256, -1))
                ends.append(False)
            at = steps[at][byte]
        ends[at] = True
    back, queue = [0] * len(steps), [0]
    for at in queue:  # breadth first, so that the shorter state a miss falls back to is complete already
        for byte in range(256):
            child, fallback = steps[at][byte], steps[back[at]][byte] if at else 0
            if child < 0:
                steps[at][byte] = fallback
            else:
                back[child] = fallback
                ends[child] = ends[child] or ends[fallback]
                queue.append(child)
    return np.stack(steps), np.array(ends)
