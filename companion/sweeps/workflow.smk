"""The runs of a sweep: the same rule on one machine and on a cluster.

`ppp sweep run` writes what is wanted into the folder of the sweep and starts this there. A run
that is up to date is not asked for; the others have no mark below `done`, whatever a clock says.
"""

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(workflow.basedir).parents[1]))
from companion.processes import end_with_command

end_with_command()
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
        [f"done/{run}" for run in Path("todo.txt").read_text().split()],


rule run:
    output:
        "done/{run}",
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
