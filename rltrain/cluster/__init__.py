"""Tasks of a sweep on other machines: submitted, watched, and submitted again where they died."""
