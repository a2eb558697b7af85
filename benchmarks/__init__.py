"""Ratios, measured in one run on one machine; a figure alone means nothing."""
