"""Starts a worker as `squall.kernel.launch` does, with its coverage measured: ... CONFIG SITE LAUNCH MODULE ARGUMENTS...

Workers run with -I -S, where nothing of the environment and no site-packages are seen, so coverage's own way into child
processes is shut; this is the way in for tests, and what is measured is the same code in the same bare interpreter.
"""

import os
import runpy
import sys

config, site, launch, *rest = sys.argv[1:]
os.environ["COVERAGE_PROCESS_CONFIG"] = config
sys.path.append(site)
import coverage  # noqa: E402 - it can be found only now

coverage.process_startup()
sys.path.remove(site)
del os.environ["COVERAGE_PROCESS_CONFIG"]
sys.argv = [launch, *rest]
runpy.run_path(launch, run_name="__main__")
