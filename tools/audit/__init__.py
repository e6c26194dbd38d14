"""The audit of judges: labelled traces, agreement, and its page."""
