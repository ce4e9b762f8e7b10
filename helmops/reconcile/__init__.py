"""The pass: fetch, resolve, compose, observe, decide, perform, record, notify."""
