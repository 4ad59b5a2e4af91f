"""Sweeps over experiments, trackers and exports."""
