"""A wall clock that can be moved for one process: a library before libc, and a file that holds the offset."""

import shutil
import struct
import subprocess
from pathlib import Path

SOURCE = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <time.h>
static volatile long *offset;
static long shift(void) {
    if (!offset) {
        const char *path = getenv("CLOCK_OFFSET_FILE");
        int file = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
        void *page = file < 0 ? MAP_FAILED : mmap(0, sizeof(long), PROT_READ, MAP_SHARED, file, 0);
        static long none;
        offset = page == MAP_FAILED ? &none : page;
    }
    return *offset;
}
int clock_gettime(clockid_t id, struct timespec *now) {
    static int (*real)(clockid_t, struct timespec *);
    if (!real) real = dlsym(RTLD_NEXT, "clock_gettime");
    int answer = real(id, now);
    if (!answer && (id == CLOCK_REALTIME || id == CLOCK_REALTIME_COARSE)) now->tv_sec += shift();
    return answer;
}
time_t time(time_t *out) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (out) *out = now.tv_sec;
    return now.tv_sec;
}
int gettimeofday(struct timeval *now, void *zone) {
    (void)zone;
    struct timespec exact;
    clock_gettime(CLOCK_REALTIME, &exact);
    now->tv_sec = exact.tv_sec;
    now->tv_usec = exact.tv_nsec / 1000;
    return 0;
}
"""


class Clock:
    """The wall clock of the processes that were started with ``environ``."""

    def __init__(self, library: Path, file: Path) -> None:
        """Use a library that ``build`` made; ``file`` is made, and readable by everybody."""
        self._file = file
        self.environ = {"LD_PRELOAD": str(library), "CLOCK_OFFSET_FILE": str(file)}
        self.offset_seconds = 0
        file.write_bytes(struct.pack("<q", 0))
        file.chmod(0o644)

    def jump(self, seconds: int) -> None:
        """Move it by so many seconds, at once."""
        self.offset_seconds += seconds
        with self._file.open("r+b") as file:
            file.write(struct.pack("<q", self.offset_seconds))


def build(folder: Path) -> Path | None:
    """Compile the library into ``folder``; None where there is no C compiler."""
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        return None
    source, library = folder / "clock.c", folder / "clock.so"
    source.write_text(SOURCE)
    done = subprocess.run([compiler, "-shared", "-fPIC", "-O1", "-o", library, source, "-ldl"], check=False)
    if done.returncode != 0:
        return None
    library.chmod(0o755)
    return library
