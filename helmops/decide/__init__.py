"""The decider: pure functions between what was seen and what is done.

`next_action.decide` is the only place where a pass retries, stops or stalls.
"""
