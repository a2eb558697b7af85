"""The guide: Sphinx with MyST, and what makes and checks its pages."""
