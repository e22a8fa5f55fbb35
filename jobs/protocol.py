"""The version of what an API and a worker have to understand alike."""

PROTOCOL = 2
"""Raised by whatever older code would misread: a field of specs, what is claimed, what a move of a job implies.

1: until 0.1.0 was finished. 2: `notify` in specs, told by whoever ends the job.

A job carries the version of the code that accepted it, an incarnation that of its worker. Jobs are placed on workers of
the dispatcher's own version alone, and no code moves a job that newer code has accepted (`moves.apply`), except
that a job whose parents have succeeded may be queued. Where newer code dispatches, older code does not. Columns that a
migration adds have defaults, so that older code, which runs on until its worker is upgraded, can go on writing rows.
"""
