"""Reading text alone: responses, answers, sentences, boxes; no jax and no world."""
