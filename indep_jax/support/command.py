"""Start and end of every command: flags, one-line errors, exit codes, the cache of programs."""

import errno
import importlib.util
import os
import signal
import sys
from collections.abc import Callable, Sequence

from absl import app, flags, logging

from indep_jax.support import devices
from indep_jax.support.errors import UserError
from indep_jax.support.files import cache_folder

PROGRAMS_BYTES = 4 << 30  # that compiled programs may take on disk; the least used go first

# Errors of writing that come without a file's name: full, over quota, read-only, too large,
# broken, and the reader at the other end of a pipe gone.
_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG, errno.EIO, errno.EPIPE)


class _Terminated(KeyboardInterrupt):
    """SIGTERM, so that what is half-written is cleared away as after Ctrl-C."""


def run(
    main: Callable[..., None],
    choices: Sequence[str] = (),
    *,
    operands: str = "",
    memory_remedy: str = "",
) -> None:
    """Parse the absl flags, call `main()` and exit.

    With `choices`, one argument that is not a flag is required, one of them, and given to `main`.
    With `operands`, the name of what they are, at least one is, and `main` gets them all.
    `memory_remedy` says what to change when a device's memory runs out ("lower --seconds").

    Exit code 0, also after --help. 2 for what the user can mend, printed to stderr in one line as
    "module: message": a bad flag, a UserError, or an OSError that names a file or says that the
    disk failed. 130 when interrupted, 143 when terminated. 1 where a device's memory ran out,
    in one line too, and for everything else, which keeps its traceback; that ends in a line that
    says that this is a bug of the package. `--verbosity=1` shows the traceback of a user's error
    as well. Log lines below warnings, such as Orbax's, are left out unless `--verbosity` asks for
    them.

    Compiled programs are kept in JAX_COMPILATION_CACHE_DIR, by default in the user's cache folder,
    so that the same command compiles once. Nothing here imports JAX: a `main` that imports what it
    needs itself answers --help at once. Where an accelerator has no plugin of JAX, a line says so.
    """
    spec = sys.modules["__main__"].__spec__
    name = spec.name.removesuffix(".__main__") if spec else sys.argv[0]

    def fail(message: str, code: int = 2):
        print(f"{name}: {message}", file=sys.stderr)
        sys.exit(code)

    def parse(argv: Sequence[str]) -> Sequence[str]:
        try:
            arguments = flags.FLAGS(argv)[1:]
        except SystemExit:
            sys.exit()  # --help, which absl ends with 1
        except (flags.Error, LookupError, AttributeError, TypeError, ValueError) as error:
            # Besides flags.Error, what ml_collections raises for a config's field that cannot be.
            fail(_one_line(error.args[0] if isinstance(error, KeyError) else error))
        if flags.FLAGS["verbosity"].using_default_value:
            flags.FLAGS.verbosity = logging.WARNING  # as a value: absl turns a default into INFO
        if choices and (len(arguments) != 1 or arguments[0] not in choices):
            fail(f"expected one of {', '.join(choices)}, and flags; see --help")
        if operands and not arguments:
            fail(f"expected {operands}, and flags; see --help")
        if arguments and not (choices or operands):
            fail(f"unexpected argument {arguments[0]!r}; flags are --name=value, see --help")
        return [argv[0], *arguments]

    def guarded(argv: Sequence[str]) -> None:
        _keep_programs()
        if spec:  # the scripts in launch/ leave computing to the commands
            devices.warn_of_missing_plugin(name)
        signal.signal(signal.SIGTERM, _terminate)
        try:
            main(*argv[1:])
        except KeyboardInterrupt as error:
            terminated = isinstance(error, _Terminated)
            print(f"{name}: {'terminated' if terminated else 'interrupted'}", file=sys.stderr)
            sys.exit(128 + (signal.SIGTERM if terminated else signal.SIGINT))
        except Exception as error:
            if reason := devices.out_of_memory(error):
                logging.debug("where it was raised", exc_info=True)
                fail(_out_of_memory(reason, memory_remedy), code=1)
            message = _user_message(error)
            if message is None:
                error.add_note(f"{name}: this is a bug of indep_jax; please report the lines above")
                raise
            logging.debug("where it was raised", exc_info=True)
            fail(message)

    app.run(guarded, flags_parser=parse)


def _terminate(number, frame) -> None:
    raise _Terminated


def _keep_programs() -> None:
    """Set JAX's cache of compiled programs, whether JAX is imported already or later."""
    if "JAX_COMPILATION_CACHE_DIR" in os.environ:
        return
    if importlib.util.find_spec("filelock") is None:  # without it, JAX cannot limit the cache
        return
    settings = dict(
        jax_compilation_cache_dir=str(cache_folder()),
        jax_compilation_cache_max_size=PROGRAMS_BYTES,
    )
    for setting, value in settings.items():
        if "jax" in sys.modules:
            sys.modules["jax"].config.update(setting, value)
        else:
            os.environ[setting.upper()] = str(value)


def _out_of_memory(reason: str, remedy: str) -> str:
    remedies = [*filter(None, [remedy]), "end other programs that use the device"]
    if sys.modules["jax"].default_backend() != "cpu":
        remedies.append("set JAX_PLATFORMS=cpu")
    return f"out of device memory ({reason}): {', or '.join(remedies)}"


def _user_message(error: Exception) -> str | None:
    """The line for what the user can mend; None for a bug."""
    if isinstance(error, UserError):
        return _one_line(error)
    if isinstance(error, OSError) and (error.filename is not None or error.errno in _DISK):
        # Of a renaming that failed, the target is what the user has named.
        path = error.filename if error.filename2 is None else error.filename2
        path = os.fsdecode(path) if isinstance(path, bytes) else path
        reason = error.strerror or type(error).__name__
        reason = reason[:1].lower() + reason[1:]
        return _one_line(reason if path is None else f"{path}: {reason}")
    return None


def _one_line(error: Exception | str) -> str:
    lines = [line.strip() for line in str(error).splitlines()]
    return " ".join(filter(None, lines)) or type(error).__name__
