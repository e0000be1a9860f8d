"""Reads cases as JSON, one per line, and answers each with what ClusterShell makes of it.

{"expression": "a[1-3]!a2"}  ->  {"names": ["a1", "a3"]} or {"error": "..."}
{"names": ["a1", "a3"]}      ->  {"folded": "a[1,3]"}
"""

import json
import sys

from ClusterShell.NodeSet import NodeSet

for line in sys.stdin:
    case = json.loads(line)
    try:
        if "expression" in case:
            answer = {"names": sorted(NodeSet(case["expression"], resolver=None))}
        else:
            nodes = NodeSet()
            nodes.fold_axis = (-1,)
            nodes.update(",".join(case["names"]))
            answer = {"folded": str(nodes)}
    except Exception as error:
        answer = {"error": "%s: %s" % (type(error).__name__, error)}
    print(json.dumps(answer))
