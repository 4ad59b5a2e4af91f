"""The kinds of tasks: labelled, zero-shot, toxicity."""
