"""What is installed, for bug reports."""
