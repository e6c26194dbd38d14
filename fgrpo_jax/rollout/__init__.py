"""Rollouts: prompts × group → completions, with the log-probs of the distribution they were drawn from."""
