"""Parse or run command lines in one process that has imported the package, each in a fork of its own.

Reads JSON lines from stdin, {"argv": ["python", "-m", ...], "run": bool}, and answers each with
{"code": exit code, "output": stdout and stderr, the traceback last}. Without "run" the command's own parser reads its
flags, and the command ends there. Importing takes seconds, a fork takes none; JAX has not started
its threads when a fork is made.
"""

import argparse
import json
import os
import runpy
import sys
import tempfile
import traceback

import absl.app

# What the commands import.
import indep_jax.evaluation
import indep_jax.inference
import indep_jax.report
import indep_jax.tasks.codec
import indep_jax.tasks.lm  # noqa: F401


def start(argv: list[str]) -> None:
    """Run what `python ARGV[1:]` would run: a module, or a script."""
    assert argv[0] == "python", argv
    if argv[1] == "-m":
        sys.argv = argv[2:]
        runpy.run_module(argv[2], run_name="__main__", alter_sys=True)
    else:
        sys.argv = argv[1:]
        sys.path.insert(0, os.path.dirname(argv[1]))
        runpy.run_path(argv[1], run_name="__main__")


def stop_after_parsing() -> None:
    """Make the parsers of absl and argparse the last thing that a command does."""

    def run(main, argv=None, flags_parser=None):
        flags_parser(sys.argv)
        sys.exit()

    parse = argparse.ArgumentParser.parse_args

    def parse_args(self, args=None, namespace=None):
        parse(self, args, namespace)
        sys.exit()

    absl.app.run = run
    argparse.ArgumentParser.parse_args = parse_args


def in_fork(argv: list[str], run: bool) -> dict:
    with tempfile.TemporaryFile() as output:
        sys.stdout.flush()
        child = os.fork()
        if child == 0:
            code = 1
            try:
                os.dup2(output.fileno(), 1)
                os.dup2(output.fileno(), 2)
                if not run:
                    stop_after_parsing()
                start(argv)
                code = 0 if run else 1  # a command whose parser was never called
            except SystemExit as end:
                code = end.code or 0
            except BaseException:
                traceback.print_exc()
            finally:
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(code if isinstance(code, int) else 1)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        output.seek(0)
        return dict(code=code, output=output.read().decode(errors="replace"))


if __name__ == "__main__":
    for line in sys.stdin:
        print(json.dumps(in_fork(**json.loads(line))), flush=True)
