"""Train: pre-fine-tune on selected text, then fine-tune on the labelled target."""
