"""Faults under load: what is lost, what is double, and how long it takes to get on.

A pipeline of real processes is fed at a steady rate and broken in one way after the other. After
each fault every entry that was promised is looked for in Postgres, once and once only, and in the
dead letters; the streams are read for entries twice or out of their order.
"""

RATE = 120.0  # entries/s: load on two cores, with room to catch up
