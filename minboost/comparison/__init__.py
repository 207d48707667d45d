"""Comparisons: arms, the answers of suites under them, the file they are kept in, statistics."""
