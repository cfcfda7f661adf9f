"""The runs of a sweep: the same rule on one machine and on a cluster.

`ppp sweep run` writes what is wanted into the folder of the sweep and starts this. A run that is
up to date has its mark below `done`; for all others there is none, whatever a clock says.
"""

import json
import sys
from pathlib import Path

FOLDER = Path(config["sweep"])
WANTED = json.loads((FOLDER / "wanted.json").read_bytes())
LIMITS = WANTED["limits"]

# A limit that was not given is left to the machine or the cluster.
RESOURCES = {}
if LIMITS["memory"]:
    RESOURCES["mem_mb"] = LIMITS["memory"] // 2**20 + 512  # what watches the run needs some too
if LIMITS["time"]:
    RESOURCES["runtime"] = int(LIMITS["time"] // 60) + 3
if LIMITS["gpu"]:
    RESOURCES["gpu"] = 1


rule all:
    input:
        [str(FOLDER / "done" / run) for run in (FOLDER / "todo.txt").read_text().split()],


rule run:
    output:
        str(FOLDER / "done" / "{run}"),
    threads: LIMITS["threads"]
    resources:
        **RESOURCES,
    params:
        python=sys.executable,
        folder=str(FOLDER),
    shell:
        "{params.python:q} -m companion.sweeps.job {params.folder:q} {wildcards.run}"
