"""Bulk re-recommendation: many requests from files or a database, the answers into a store."""
