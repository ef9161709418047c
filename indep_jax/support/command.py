"""How the commands start: flags parsed, compiled programs kept, a user's mistake told in one line,
exit codes."""

import os
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import jax
from absl import app, flags, logging

PROGRAMS_BYTES = 4 << 30  # that compiled programs may take on disk; the least used go first


class _Terminated(KeyboardInterrupt):
    """SIGTERM, so that what is half-written is cleared away as after Ctrl-C."""


def run(main: Callable[..., None], choices: Sequence[str] = ()) -> None:
    """Parses the absl flags, calls `main()` and exits.

    With `choices`, one argument that is no flag is required, one of them, and given to `main`.

    Exit code 0; 2 for a user's mistake (a bad flag, or a ValueError or OSError of one line, which
    by the rule of this package is what a mistake raises), told on stderr as "module: message";
    130 when interrupted, 143 when terminated. An error of several lines is a bug and keeps its traceback;
    `--verbosity=1` shows that of a mistake as well. Log lines under a warning, such as Orbax's, are
    left out unless `--verbosity` asks for them.

    Compiled programs are kept in JAX_COMPILATION_CACHE_DIR, by default in the user's cache folder,
    so that the same command compiles once.
    """
    spec = sys.modules["__main__"].__spec__
    name = spec.name if spec else sys.argv[0]

    def fail(message: str):
        print(f"{name}: {message}", file=sys.stderr)
        sys.exit(2)

    def parse(argv: Sequence[str]) -> Sequence[str]:
        try:
            arguments = flags.FLAGS(argv)[1:]
        except (flags.Error, KeyError) as error:
            # ml_collections raises KeyError for a config field that is not there; its str() is
            # quoted.
            message = error.args[0] if isinstance(error, KeyError) else error
            fail(" ".join(str(message).split()))
        if flags.FLAGS["verbosity"].using_default_value:
            flags.FLAGS.verbosity = logging.WARNING  # as a value: absl turns a default into INFO
        if choices and (len(arguments) != 1 or arguments[0] not in choices):
            fail(f"expected one of {', '.join(choices)}, and flags; see --help")
        if arguments and not choices:
            fail(f"unexpected argument {arguments[0]!r}; flags are --name=value, see --help")
        return [argv[0], *arguments]

    def guarded(argv: Sequence[str]) -> None:
        _keep_programs()
        signal.signal(signal.SIGTERM, _terminate)
        try:
            main(*argv[1:])
        except KeyboardInterrupt as error:
            terminated = isinstance(error, _Terminated)
            print(f"{name}: {'terminated' if terminated else 'interrupted'}", file=sys.stderr)
            sys.exit(128 + (signal.SIGTERM if terminated else signal.SIGINT))
        except (ValueError, OSError) as error:
            message = _one_line(error)
            if "\n" in message:
                raise
            logging.debug("where it was raised", exc_info=True)
            fail(message)

    app.run(guarded, flags_parser=parse)


def _terminate(number, frame) -> None:
    raise _Terminated


def _keep_programs() -> None:
    if jax.config.jax_compilation_cache_dir is None:
        home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
        jax.config.update("jax_compilation_cache_dir", str(Path(home) / "indep_jax"))
        jax.config.update("jax_compilation_cache_max_size", PROGRAMS_BYTES)


def _one_line(error: Exception) -> str:
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {(error.strerror or type(error).__name__).lower()}"
    return str(error) or type(error).__name__
