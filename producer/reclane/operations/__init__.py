"""What operators do with a running system: look into queues, mend dead letters, check health.

Functions over a connection and `names.Keys`, apart from the command line that shows them.
"""
