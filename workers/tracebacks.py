"""From how a program of the user's ended, and the last that it printed, to a failure class. Pure."""

import re
import signal

from stoker.jobs.failures import Failure

EVIDENCE_LIMIT = 4000  # characters
LAST_LINES = 12  # where there is no traceback
SHELL_SIGNALS = 128  # a shell says by its exit code that a program below it was ended by a signal: 128 + number
_NO_NETWORK = "a job reaches a network only if it asks for that: `--network open`, `network: open` in a spec"
_MARK = "Traceback (most recent call last):"
_CHAINED = ("During handling of the above", "The above exception was the direct cause")
_SYNTAX = ("SyntaxError", "IndentationError", "TabError")
_RAISED = re.compile(r"(?P<name>[A-Za-z_][\w.]*)(?:: (?P<text>.*))?")
_QUOTED = re.compile(r"'([^']+)'")
_CANNOT_OPEN = re.compile(r"can't open file '([^']+)': \[Errno 2\]")
_KILLED = {signal.SIGILL, signal.SIGABRT, signal.SIGBUS, signal.SIGFPE, signal.SIGKILL, signal.SIGSEGV, signal.SIGTERM}


def explain(status: int, printed: str) -> Failure:
    """Explain an exit code other than 0, or a signal (a negative number), by the end of the log."""
    if status < 0:
        return Failure("signal", _with_lines(f"it was ended by {signal_name(-status)}", printed))
    found = _last_exception(printed)
    if found is not None:
        name, text, lines = found
        klass, fix = _classify(name, text)
        trace = "\n".join(lines)
        return Failure(klass, _clip(trace), _NO_NETWORK if _wants_network(text, trace) else fix)
    if missing := _CANNOT_OPEN.search(printed):
        return Failure("data_missing", f"there is no {missing[1]}", _no_such_file(missing[1]))
    if status - SHELL_SIGNALS in _KILLED:
        evidence = f"exit code {status}: a program that it had started was ended by {signal_name(status - 128)}"
        return Failure("signal", _with_lines(evidence, printed))
    return Failure("user_error", _with_lines(f"it ended with exit code {status}", printed), _of_status(status))


def signal_name(number: int) -> str:
    """``signal 9 (SIGKILL)``."""
    try:
        return f"signal {number} ({signal.Signals(number).name})"
    except ValueError:
        return f"signal {number}"


def _of_status(status: int) -> str:
    if status == 126:
        return "the command is no program: chmod +x it, and let a script begin with #! and its interpreter"
    if status == 127:
        return "a shell found no such command: name one that is there, or carry it along with the code"
    return "read the end of the log"


def _last_exception(printed: str) -> tuple[str, str, list[str]] | None:
    """The last exception that was printed: its name, its text, and the lines of its traceback."""
    lines = printed.rstrip().splitlines()
    starts = [number for number, line in enumerate(lines) if line.strip() == _MARK]
    for start in reversed(starts):
        for number in range(start + 1, len(lines)):
            if lines[number] and not lines[number].startswith((" ", "\t")):
                return _named(lines, start, number)
    return _syntax_error(lines)


def _named(lines: list[str], start: int, at: int) -> tuple[str, str, list[str]] | None:
    found = _RAISED.match(lines[at])
    if found is None:
        return None
    end = at + 1
    while end < len(lines) and lines[end] and not lines[end].startswith(_CHAINED) and end < at + 20:
        end += 1  # an exception's text may go on over several lines
    return found["name"], found["text"] or "", lines[start:end]


def _syntax_error(lines: list[str]) -> tuple[str, str, list[str]] | None:
    """A file that Python cannot read at all is named without a traceback."""
    for number in range(len(lines) - 1, -1, -1):
        name, _, text = lines[number].partition(": ")
        if name in _SYNTAX:
            return name, text, lines[max(0, number - 3) : number + 1]
    return None


def _classify(name: str, text: str) -> tuple[str, str]:
    short = name.rpartition(".")[2]
    if short in ("ModuleNotFoundError", "ImportError"):
        return "import_error", _not_imported(text)
    if short == "FileNotFoundError" or "[Errno 2]" in text:
        return "data_missing", _no_such_file(_quoted(text))
    if short == "OutOfMemoryError" or "CUDA out of memory" in text:
        return "gpu_out_of_memory", "use a smaller model or batch, or ask for a GPU with more memory"
    if short == "MemoryError" or "can't allocate memory" in text or "[Errno 12]" in text:
        return "host_out_of_memory", "ask for more resources.memory, or use a smaller batch"
    if short in _SYNTAX:
        return "user_error", "mend the line that is shown: Python cannot read the file"
    return "user_error", _fix_of_text(text)


def _wants_network(text: str, trace: str) -> bool:
    """Whether a socket was refused, or a name not found, as it is for jobs without network."""
    refused = "[Errno 1]" in text and ("/socket.py" in trace or "urlopen" in text or "connection" in text)
    return refused or "[Errno -3]" in text or "Temporary failure in name resolution" in text


def _fix_of_text(text: str) -> str:
    if "[Errno 27]" in text:
        return "write smaller files: this one grew beyond what a job may write"
    if "[Errno 28]" in text or "[Errno 122]" in text:
        return "write less, or remove what is not needed any more: the worker's disk had no room left"
    if "[Errno 13]" in text or "[Errno 1]" in text:
        return (
            "a job may write to its folder and $STOKER_OUTPUT, and read its code and $STOKER_DATA; see docs/own-code.md"
        )
    if "CUDA error" in text:
        return "run it with the variable CUDA_LAUNCH_BLOCKING=1 to see which call fails; labels out of range are common"
    return "read the traceback"


def _not_imported(text: str) -> str:
    module = _quoted(text).partition(".")[0]
    if not module:
        return "see which name of which package cannot be imported: the version may be another than you expect"
    return f"add the package of {module} to the file of environment.requirements, or {module} itself to the code"


def _no_such_file(name: str) -> str:
    return (
        f"add {name or 'it'} to the code (is it left out by .gitignore or .stokerignore?), or name a data set in "
        "`datasets` and read $STOKER_DATA/NAME"
    )


def _quoted(text: str) -> str:
    found = _QUOTED.search(text)
    return found[1] if found else ""


def _with_lines(evidence: str, printed: str) -> str:
    last = "\n".join(printed.strip().splitlines()[-LAST_LINES:])
    return _clip(f"{evidence}; the end of its log:\n{last}" if last else evidence)


def _clip(text: str) -> str:
    """Keep the beginning and the end: a traceback says what happened in its last lines."""
    half = EVIDENCE_LIMIT // 2
    return text if len(text) <= EVIDENCE_LIMIT else f"{text[:half]}\n…\n{text[-half:]}"
