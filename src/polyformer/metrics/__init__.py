"""How answers are scored, each as its data set's own script does."""
