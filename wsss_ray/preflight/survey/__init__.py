"""Inspect a folder of a user's images, and write a job that suits the images and the machine.

    layouts.py   recognise the layout: folder -> FolderListing of images, tags, masks and the fields of the job's `data:` block
    folders.py   one layout: a table of tags, or one subfolder per class
    sets.py      the other layouts: Pascal VOC, and COCO's JSON
    files.py     read all headers, decode a sample, find odd files and copies
    masks.py     compare the labels in masks with the classes and tags
    split.py     hold out a validation set
    survey.py    run all of the above
    sizes.py     describe the machine; choose image sizes, batches and epochs for it
    ladder.py    other settings, from those that score best to those that are made soonest
    budget.py    choose settings for a time that the user gives, or a preset
    jobtext.py   the commented job file
    write.py     write the job file, and a table or lists beside it
    findings.py  the lines that `init` prints

Nothing here changes the folder.
"""
