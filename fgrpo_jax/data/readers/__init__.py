"""Published layouts, one function pair a set: where its records are, and how one of them becomes an example."""
