"""Is a release healthy? And what is to be run around a remediation.

`ReleaseChecks` and `ReleaseHooks` meet the ports `Checks` and `Hooks`.
"""
