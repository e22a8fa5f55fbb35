"""IPython in the trainer's own process, without a kernel and without a socket: cells in, outputs into a ``Sheet``."""

import builtins
import getpass
import os
import subprocess
import sys
import warnings
from typing import Any, TextIO

from IPython.core.displayhook import DisplayHook
from IPython.core.displaypub import DisplayPublisher
from IPython.core.interactiveshell import InteractiveShell
from IPython.utils.text import LSString, SList
from traitlets import Type
from traitlets.config import Config

from stoker.errors import StokerError
from stoker.training.notebook_file import Sheet

_SHELL = ("/bin/sh", "-c")
INLINE = "module://matplotlib_inline.backend_inline"


class NoInput(StokerError):
    """A cell asks a question, and nobody is there to answer."""

    code = "no_input"

    def __str__(self) -> str:
        return "input() has nobody to ask in a job: set a parameter instead (`--set name=value`)"


class NoDisplay(StokerError):
    """A cell wants a window."""

    code = "no_display"

    def __init__(self, toolkit: object) -> None:
        super().__init__(toolkit)
        self.toolkit = toolkit

    def __str__(self) -> str:
        return f"a job has no display for {self.toolkit}: use %matplotlib inline"


class _Stream:
    """Stands in for stdout or stderr: into the notebook, and on to the job's log."""

    def __init__(self, name: str, log: TextIO, sheet: Sheet) -> None:
        self._name, self._log, self._sheet = name, log, sheet

    def write(self, text: str) -> int:
        self._sheet.write(self._name, text)
        return self._log.write(text)

    def writelines(self, lines: Any) -> None:
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._log, name)


class _Hook(DisplayHook):
    """Takes the value of a cell's last expression."""

    shell: "Shell"

    def start_displayhook(self) -> None:
        pass

    def write_output_prompt(self) -> None:
        pass

    def write_format_data(self, format_dict: dict[str, Any], md_dict: dict[str, Any] | None = None) -> None:
        number = self.shell.execution_count
        self.shell.sheet.show("execute_result", format_dict, md_dict or {}, execution_count=number)
        self.shell.log(str(format_dict.get("text/plain", "")))

    def finish_displayhook(self) -> None:
        pass


class _Publisher(DisplayPublisher):
    """Takes what is displayed: pictures, tables, and updates of them."""

    shell: "Shell"

    def publish(  # type: ignore[override]
        self,
        data: dict[str, Any],
        metadata: dict[str, Any] | None = None,
        *,
        transient: dict[str, Any] | None = None,
        update: bool = False,
        **_: Any,
    ) -> None:
        sheet: Sheet = self.shell.sheet
        display = (transient or {}).get("display_id")
        if update and display is not None:
            sheet.update(display, data, metadata or {})
        else:
            sheet.show("display_data", data, metadata or {}, display)
        self.shell.log(str(data.get("text/plain", "")))

    def clear_output(self, wait: bool = False) -> None:
        self.shell.sheet.clear(wait=wait)


class Shell(InteractiveShell):
    """One notebook's interpreter."""

    displayhook_class = Type(_Hook)
    display_pub_class = Type(_Publisher)
    sheet: Sheet
    trace: list[str]  # of the last error, a text a line

    @classmethod
    def start(cls, sheet: Sheet) -> "Shell":
        """The one shell of this process, with its streams in place of the process's."""
        os.environ.setdefault("MPLBACKEND", INLINE)
        config = Config()
        config.HistoryManager.enabled = False
        config.InteractiveShell.colors = "nocolor"
        config.InteractiveShell.separate_in = ""
        shell: Shell = cls.instance(config=config)
        shell.sheet, shell.trace = sheet, []
        warnings.filterwarnings("ignore", "To exit:")
        sys.stdout, sys.stderr = (
            _Stream(name, log, sheet) for name, log in (("stdout", sys.stdout), ("stderr", sys.stderr))
        )
        builtins.input = getpass.getpass = _refuse
        return shell

    def log(self, text: str) -> None:
        """Write a line into the job's log alone."""
        if text:
            sys.__stdout__.write(text + "\n")  # type: ignore[union-attr]

    def enable_gui(self, gui: Any = None) -> None:
        """There are no windows, and so no loop of a toolkit."""

    def enable_matplotlib(self, gui: Any = None) -> Any:
        """``%matplotlib inline`` is all there is. Raises NoDisplay."""
        if gui not in (None, "auto", "inline", "agg"):
            raise NoDisplay(gui)
        return super().enable_matplotlib(None if gui == "auto" else gui)  # type: ignore[no-untyped-call]

    def system(self, cmd: str) -> None:
        """``!command``: no terminal is opened for it."""
        with subprocess.Popen(
            [*_SHELL, self.var_expand(cmd, depth=1)],  # type: ignore[no-untyped-call]
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        ) as process:
            for line in process.stdout or ():
                sys.stdout.write(line)
        self.user_ns["_exit_code"] = process.returncode

    def getoutput(self, cmd: str, split: bool = True, depth: int = 0) -> Any:
        """``lines = !command``."""
        ran = subprocess.run(
            [*_SHELL, self.var_expand(cmd, depth=depth + 1)],  # type: ignore[no-untyped-call]
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            text=True,
            errors="replace",
            check=False,
        )
        return SList(ran.stdout.splitlines()) if split else LSString(ran.stdout)

    def _showtraceback(self, etype: type[BaseException], evalue: BaseException, stb: list[str]) -> None:
        self.trace = "\n".join(stb).splitlines()
        if issubclass(etype, SystemExit):
            return
        self.sheet.fail(etype.__name__, str(evalue), self.trace)
        sys.__stderr__.write("\n".join(self.trace) + "\n")  # type: ignore[union-attr]


def _refuse(*_: Any, **__: Any) -> str:
    raise NoInput
