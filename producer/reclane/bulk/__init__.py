"""Bulk runs: many requests from files or a table, advanced by workers, watched from anywhere."""
