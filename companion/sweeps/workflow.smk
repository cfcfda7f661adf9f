"""The runs of a sweep: the same rule on one machine and on a cluster.

`ppp sweep run` writes what is wanted into the folder of the sweep and starts this there. A run
that is up to date is not asked for; the others have no mark below `done`, whatever a clock says.
"""

import json
import os
import sys
from pathlib import Path

import pandas
from snakemake.utils import Paramspace

sys.path.insert(0, str(Path(workflow.basedir).parents[1]))
from companion import processes

processes.end_with_command()
os.environ.pop(processes.COMMAND, None)
os.environ.update(processes.environment())  # a run ends when this process is gone

# A space of ids: values may be paths, lists and texts of any length, which no path can hold.
RUNS = Paramspace(pandas.read_csv("todo.csv", dtype=str))
PLACES = {"checkout": str(Path(workflow.basedir).parents[1]), "folder": str(Path.cwd())}
LIMITS = json.loads(Path("wanted.json").read_bytes())["limits"]

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
        expand("done/{run}", run=RUNS.instance_patterns),


rule run:
    output:
        touch(f"done/{RUNS.wildcard_pattern}"),
    threads: LIMITS["threads"]
    resources:
        **RESOURCES,
    params:
        python=sys.executable,
        checkout=lambda _: PLACES["checkout"],  # functions: a brace in a name is no wildcard
        folder=lambda _: PLACES["folder"],
    shell:
        "cd {params.checkout:q} && "
        "{params.python:q} -m companion.sweeps.job {params.folder:q} {wildcards.run}"
