"""What Sphinx is taught for this guide."""
