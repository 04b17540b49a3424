"""The page of a run: one file that opens anywhere, made from the record alone."""
