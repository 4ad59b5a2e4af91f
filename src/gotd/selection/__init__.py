"""Arms that rank candidates for a target: each a `Selector`, all held to one contract suite."""
