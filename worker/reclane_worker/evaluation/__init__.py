"""What `reclane eval` does: measures catalogs on requests with known answers.

`plan` says which catalogs, `measuring` asks the pipeline and times its stages, `baselines` ranks by
words and by popularity, `saved` keeps a run, `comparing` holds one against an earlier one, `worst`
says what went wrong, and `page` shows all that as HTML.
"""
