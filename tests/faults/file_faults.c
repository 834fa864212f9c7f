/* Counts what a process changes below some folders, and strikes at the N-th: a kill, or a device that takes no more.

Loaded before all else by LD_PRELOAD. Python's own files, safetensors' and torch's go through these functions; what the
C library does inside itself (fwrite) does not, but opening and renaming such a file does. A kill comes before the
operation, and in a write after half of its bytes. A full device takes half of a write, and then nothing that grows. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

enum { KILL = -1 };

static char watched[PATH_MAX];
static long strike_at, counted;
static int how, trace = -1;
static pid_t armed_for;

/* Arms this process, not its children. `error` is KILL or an errno, which every operation has from the N-th on; ENOSPC
   only has those that need space. `at` 0 only counts. Each operation is one line in the file `descriptor`, if that is not negative. */
void file_faults_arm(const char *folder, long at, int error, int descriptor) {
    snprintf(watched, sizeof watched, "%s", folder);
    strike_at = at, how = error, trace = descriptor, counted = 0, armed_for = getpid();
}

static int below(int folder, const char *path, char *full) {
    char place[PATH_MAX] = "", link[64];
    if (path == NULL || path[0] != '/') {
        if (folder == AT_FDCWD) {
            if (getcwd(place, sizeof place) == NULL) return 0;
        } else {
            snprintf(link, sizeof link, "/proc/self/fd/%d", folder);
            ssize_t length = readlink(link, place, sizeof place - 1);
            if (length < 0) return 0;
            place[length] = 0;
        }
    }
    snprintf(full, 2 * PATH_MAX, path == NULL ? "%s" : "%s%s%s", place, *place ? "/" : "", path ? path : "");
    return strncmp(full, watched, strlen(watched)) == 0;
}

/* The errno with which an operation fails, or 0: it may go on. A write of some bytes may find that it is the one that
   is struck: then it does half of itself first. */
static int struck(const char *name, int folder, const char *path, int grows, int *is_first) {
    char full[2 * PATH_MAX];
    int before = errno;
    if (is_first) *is_first = 0;
    if (armed_for != getpid() || !below(folder, path, full)) { errno = before; return 0; }
    long number = ++counted;
    if (trace >= 0) dprintf(trace, "%s %s\n", name, full);  /* this library's own writes are not below the folder */
    errno = before;
    if (strike_at == 0 || number < strike_at) return 0;
    if (is_first) *is_first = number == strike_at;
    if (how == KILL) {
        if (is_first == NULL) kill(getpid(), SIGKILL);
        return 0;
    }
    return grows || how != ENOSPC ? how : 0;
}

#define REAL(type, name, ...) \
    static type (*real)(__VA_ARGS__); \
    if (real == NULL) real = (type(*)(__VA_ARGS__))dlsym(RTLD_NEXT, name)
#define REFUSE(error) do { int e = (error); if (e) { errno = e; return -1; } } while (0)

ssize_t write(int fd, const void *bytes, size_t size) {
    REAL(ssize_t, "write", int, const void *, size_t);
    int first, error = struck("write", fd, NULL, 1, &first);
    if (first && size > 1) {
        ssize_t half = real(fd, bytes, size / 2);
        if (how == KILL) kill(getpid(), SIGKILL);
        return half;
    }
    if (first && how == KILL) kill(getpid(), SIGKILL);
    REFUSE(error);
    return real(fd, bytes, size);
}

ssize_t writev(int fd, const struct iovec *pieces, int count) {
    REAL(ssize_t, "writev", int, const struct iovec *, int);
    int first, error = struck("writev", fd, NULL, 1, &first);
    if (first && count > 1) {
        ssize_t half = real(fd, pieces, count / 2);
        if (how == KILL) kill(getpid(), SIGKILL);
        return half;
    }
    if (first && how == KILL) kill(getpid(), SIGKILL);
    REFUSE(error);
    return real(fd, pieces, count);
}

#define PWRITE(name) \
    ssize_t name(int fd, const void *bytes, size_t size, off_t place) { \
        REAL(ssize_t, #name, int, const void *, size_t, off_t); \
        REFUSE(struck("pwrite", fd, NULL, 1, NULL)); \
        return real(fd, bytes, size, place); \
    }
PWRITE(pwrite)
PWRITE(pwrite64)

#define SENDFILE(name) \
    ssize_t name(int out, int in, off_t *place, size_t size) { \
        REAL(ssize_t, #name, int, int, off_t *, size_t); \
        REFUSE(struck("sendfile", out, NULL, 1, NULL)); \
        return real(out, in, place, size); \
    }
SENDFILE(sendfile)
SENDFILE(sendfile64)

ssize_t copy_file_range(int in, off_t *from, int out, off_t *to, size_t size, unsigned flags) {
    REAL(ssize_t, "copy_file_range", int, off_t *, int, off_t *, size_t, unsigned);
    REFUSE(struck("copy_file_range", out, NULL, 1, NULL));
    return real(in, from, out, to, size, flags);
}

#define CHANGES(flags) ((flags) & (O_CREAT | O_TRUNC))
#define MODE(flags) \
    mode_t mode = 0; \
    if ((flags) & O_CREAT) { va_list rest; va_start(rest, flags); mode = va_arg(rest, mode_t); va_end(rest); }
#define OPEN(name) \
    int name(const char *path, int flags, ...) { \
        REAL(int, #name, const char *, int, ...); \
        MODE(flags) \
        if (CHANGES(flags)) REFUSE(struck("open", AT_FDCWD, path, 1, NULL)); \
        return real(path, flags, mode); \
    }
OPEN(open)
OPEN(open64)
#define OPENAT(name) \
    int name(int folder, const char *path, int flags, ...) { \
        REAL(int, #name, int, const char *, int, ...); \
        MODE(flags) \
        if (CHANGES(flags)) REFUSE(struck("open", folder, path, 1, NULL)); \
        return real(folder, path, flags, mode); \
    }
OPENAT(openat)
OPENAT(openat64)
#define FOPEN(name) \
    FILE *name(const char *path, const char *mode) { \
        REAL(FILE *, #name, const char *, const char *); \
        int error = mode[0] == 'r' ? 0 : struck("open", AT_FDCWD, path, 1, NULL); \
        if (error) { errno = error; return NULL; } \
        return real(path, mode); \
    }
FOPEN(fopen)
FOPEN(fopen64)

int mkdir(const char *path, mode_t mode) {
    REAL(int, "mkdir", const char *, mode_t);
    REFUSE(struck("mkdir", AT_FDCWD, path, 1, NULL));
    return real(path, mode);
}

int mkdirat(int folder, const char *path, mode_t mode) {
    REAL(int, "mkdirat", int, const char *, mode_t);
    REFUSE(struck("mkdir", folder, path, 1, NULL));
    return real(folder, path, mode);
}

int rename(const char *from, const char *to) {
    REAL(int, "rename", const char *, const char *);
    REFUSE(struck("rename", AT_FDCWD, to, 0, NULL));
    return real(from, to);
}

int renameat(int a, const char *from, int b, const char *to) {
    REAL(int, "renameat", int, const char *, int, const char *);
    REFUSE(struck("rename", b, to, 0, NULL));
    return real(a, from, b, to);
}

int unlink(const char *path) {
    REAL(int, "unlink", const char *);
    REFUSE(struck("unlink", AT_FDCWD, path, 0, NULL));
    return real(path);
}

int unlinkat(int folder, const char *path, int flags) {
    REAL(int, "unlinkat", int, const char *, int);
    REFUSE(struck("unlink", folder, path, 0, NULL));
    return real(folder, path, flags);
}

int rmdir(const char *path) {
    REAL(int, "rmdir", const char *);
    REFUSE(struck("rmdir", AT_FDCWD, path, 0, NULL));
    return real(path);
}

#define TRUNCATE(name) \
    int name(const char *path, off_t length) { \
        REAL(int, #name, const char *, off_t); \
        REFUSE(struck("truncate", AT_FDCWD, path, 0, NULL)); \
        return real(path, length); \
    }
TRUNCATE(truncate)
TRUNCATE(truncate64)
#define FTRUNCATE(name) \
    int name(int fd, off_t length) { \
        REAL(int, #name, int, off_t); \
        REFUSE(struck("truncate", fd, NULL, 1, NULL)); \
        return real(fd, length); \
    }
FTRUNCATE(ftruncate)
FTRUNCATE(ftruncate64)

int fsync(int fd) {
    REAL(int, "fsync", int);
    REFUSE(struck("fsync", fd, NULL, 0, NULL));
    return real(fd);
}

int chmod(const char *path, mode_t mode) {
    REAL(int, "chmod", const char *, mode_t);
    REFUSE(struck("chmod", AT_FDCWD, path, 0, NULL));
    return real(path, mode);
}
