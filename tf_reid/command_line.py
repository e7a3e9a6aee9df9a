"""How every command runs: errors in one sentence."""

import os
import sys


def run_command(command):
    """Run a command; what a user can mend is told in one sentence, without a traceback."""
    try:
        command()
    except KeyboardInterrupt:
        sys.exit("\nStopped. Give the same command again: a training goes on from its last checkpoint.")
    except Exception as error:
        tensorflow = sys.modules.get("tensorflow")  # not loaded where the settings alone were wrong
        told = (ValueError, OSError, RuntimeError) + ((tensorflow.errors.OpError,) if tensorflow else ())
        if os.environ.get("TF_REID_TRACEBACK") or not isinstance(error, told):
            raise
        sys.exit(f"Error: {error}\n(TF_REID_TRACEBACK=1 shows where it was raised.)")
