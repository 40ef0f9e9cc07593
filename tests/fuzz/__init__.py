"""Every reader of bytes, fed with valid files and with mutations of them: it returns a value, or says in one line why not.

`make test` tries a few hundred inputs of each reader, `make test-all` many thousands. As many as there is time for:

    python -m tests.fuzz --seconds 600            # all readers in turn; prints inputs and findings
    python -m tests.fuzz --reader coco --input 17 # one input again, with its traceback
"""
