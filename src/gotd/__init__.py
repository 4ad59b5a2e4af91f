"""Choose the right unlabelled data to warm up a language model before fine-tuning."""

__version__ = "0.1.0"
