"""Runs commands of the official client, each in a process of its own, without loading the client anew for each.

The client takes up to a second to load and a tenth of one to do its work. Here it is loaded once; every command is
then run by a fork, as `backend.ai ARGUMENTS…` would have been: same main function, own arguments, environment and
streams. One command per line on stdin, as JSON; its exit code per line on stdout.
"""

import importlib
import json
import os
import pkgutil
import sys

from ai.backend.cli.__main__ import main

# What commands load when they are called; not every release has every one.
for name in (
    "client.session",
    "client.output.console",
    "client.func",
    "client.cli.admin",
    "client.cli.v2.helpers",
    "client.v2.v2_registry",
    "client.v2.domains_v2.image",
    "client.v2.domains_v2.container_registry",
    "client.v2.domains_v2.gql",
):
    try:
        module = importlib.import_module("ai.backend." + name)
    except ImportError:
        continue
    for part in pkgutil.iter_modules(getattr(module, "__path__", [])):
        try:
            importlib.import_module(module.__name__ + "." + part.name)
        except ImportError:
            pass


def become(command):
    """Makes this process what a shell would have started."""
    # Without a terminal, passwords are read from stdin.
    os.setsid()
    os.environ.clear()
    os.environ.update(command["environment"])
    for number, (path, flags) in enumerate(
        [
            (command["stdin"], os.O_RDONLY),
            (command["stdout"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC),
            (command["stderr"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC),
        ]
    ):
        opened = os.open(path, flags, 0o600)
        os.dup2(opened, number)
        os.close(opened)
    # The old one has read ahead.
    sys.stdin = open(0, encoding="utf-8")
    sys.argv = ["backend.ai"] + command["arguments"]


commands = os.fdopen(os.dup(0), encoding="utf-8")
answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
for line in commands:
    command = json.loads(line)
    child = os.fork()
    if child == 0:
        commands.close()
        answers.close()
        become(command)
        if command.get("script"):
            exec(compile(command["script"], "script", "exec"), {"__name__": "__main__"})
            sys.exit(0)
        sys.exit(main())
    _, status = os.waitpid(child, 0)
    code = os.WEXITSTATUS(status) if os.WIFEXITED(status) else -os.WTERMSIG(status)
    answers.write("%d\n" % code)
    answers.flush()
