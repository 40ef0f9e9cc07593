"""A zoo of inputs: layouts and quirks of people's data, each built by a small function and taken through the real commands.

    sets.py          builders of whole layouts, as the documentation lists them
    keeper.py        what a set becomes: `init`, then every split packed
    test_layouts.py  each layout through `python -m wsss_ray` in a fresh process
    test_tables.py, test_coco_quirks.py, ...  the quirks, in this process

A new bug report gets a builder, and a line in the table of the file that it belongs to.
"""
