"""Parts that the files of several papers use. Nothing here plans stages for a paper of its own."""
