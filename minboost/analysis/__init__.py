"""What methods do and how to choose them: attention mass, influence, heads, strengths, directions.

Nothing here is needed to generate; the commands of ``minboost.commands`` are made of it.
"""
