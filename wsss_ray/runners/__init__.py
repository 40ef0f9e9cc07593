"""The only folder that imports Ray: where stages run, not what they do."""
