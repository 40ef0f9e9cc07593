"""Looking at a folder of somebody's images: how it is laid out, what is in it, and the job that suits it and the machine.

    layouts.py   folder -> Listing: which images, tags and masks there are, and how a job file names them
    folders.py, sets.py   the layouts: a folder with a table or class folders; VOC and COCO
    files.py     headers, odd files, the same content twice; a sample of what needs decoding
    masks.py     the labels of masks against the classes
    sizes.py     the machine, and the sizes of networks, batches and budgets for it
    jobtext.py   the commented job file
    findings.py  what a person is told

Nothing here changes the folder.
"""
