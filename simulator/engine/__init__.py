"""A small engine that speaks Pulumi's protocol, so that the program runs where the Pulumi CLI can't be had.

Test equipment: nothing in `components/` knows of it. It runs the unmodified `__main__.py` against real SSH
and real Docker for the resource types that this program uses; anything else stops with an error that names it.
Rules follow Pulumi's own (pkg/resource/deploy); tests/engine pins them with step lists.
"""
