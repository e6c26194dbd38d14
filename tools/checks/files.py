"""Other people's files: checkpoints, data sets, formats and answers in the shapes in which they are published."""

from checks import nodes

GROUPS = nodes.tables("files")
