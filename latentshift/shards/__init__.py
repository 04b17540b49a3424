"""Runs of millions: shards that are written whole, listed in a manifest, and made anywhere in any order.

    plan.py      which rows each shard holds          store.py     where shards go: a folder, or an fsspec address
    maker.py     one shard from an engine             formats.py   folders of PNG, WebDataset tar, Parquet
    manifest.py  what is finished                     drive.py     the loop in one process; local.py, cluster.py: many
    fitted.py    what `fit` learned, as a file        watch.py     status.json and lines; check.py, read.py: afterwards

Rows are independent, so a shard's bytes depend on its seeds alone: not on who made it, when, or beside what.
"""
