"""The learner: one compiled step that gives the same numbers however its work is split, and what it is made of."""

from checks import nodes

GROUPS = nodes.tables("learner")
