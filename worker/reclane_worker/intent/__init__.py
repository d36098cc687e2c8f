"""What a request asks for: its words become constraints on a catalog's own attributes.

`languages` holds the words, `schema` what a catalog's attributes are, `vocabulary` what values are
called, `lexicon` where names and values stand in a text, `spelling` what a misspelt word means,
`parse` puts them together, `fitting` says which items fit.
"""
