"""A process and its terminal: signals, standard streams, words and numbers for a person."""
