"""What a request asks for: its words become constraints on a catalog's own attributes.

`languages` holds the words, `schema` what a catalog's attributes are, `lexicon` where its names and
values stand in a text, `parse` puts them together, `fitting` says which items fit.
"""
