"""Commands as the background of a script's shell starts them: SIGINT is ignored, and they inherit that."""

from __future__ import annotations

DEAF = ("bash", "-c", 'trap "" INT TERM; exec "$@"', "bash")
"""Before a command: it ignores SIGINT and SIGTERM when it starts. The process is the command's own."""
