"""Child processes that clean up after themselves: when this program is interrupted, they are asked
to end too, and waited for.

`subprocess.run` would kill them, and what they have set up would stay.
"""

import contextlib
import subprocess

# Enough to remove namespaces and machines. A child that takes longer is killed.
PATIENCE_S = 120


@contextlib.contextmanager
def attended(command, **options):
    """A child that has ended at the end of the block."""
    child = subprocess.Popen(command, **options)
    try:
        yield child
        child.wait()
    except BaseException as interruption:
        # Ctrl-C has reached the child too; a second request would interrupt its cleaning up.
        if not isinstance(interruption, KeyboardInterrupt):
            child.terminate()
        try:
            child.wait(PATIENCE_S)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
        raise


def attend(command, **options):
    """Runs a command; its exit status."""
    with attended(command, **options) as child:
        pass
    return child.returncode
