/* Preloaded into a process and its children: lets the n-th write to files of a name fail, or all from the n-th on.
 *
 * What fails is said by a file that is mapped into every such process and into the test (`failing_writes.py`), which may
 * change its mind at any time. Whatever changes a file counts as a write: its bytes, its length, its being on the disk.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <fnmatch.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

struct orders {
    int mode; /* 0: nothing fails; 1: the write that `left` names; 2: that one and all that follow */
    int error;
    long left;
    long failed;
    char name[240]; /* of the file, without its folder; a pattern of the shell */
};

static struct orders *orders;

__attribute__((constructor)) static void begin(void) {
    const char *file = getenv("FAILING_WRITES");
    int descriptor = file ? open(file, O_RDWR | O_CLOEXEC) : -1;
    if (descriptor < 0)
        return;
    void *mapped = mmap(NULL, sizeof *orders, PROT_READ | PROT_WRITE, MAP_SHARED, descriptor, 0);
    if (mapped != MAP_FAILED)
        orders = mapped;
    close(descriptor);
}

static int name_fails(const char *path) {
    if (!orders || !orders->mode)
        return 0;
    const char *name = strrchr(path, '/');
    if (fnmatch(orders->name, name ? name + 1 : path, 0))
        return 0;
    long left = __atomic_sub_fetch(&orders->left, 1, __ATOMIC_SEQ_CST);
    if (left > 0 || (left < 0 && orders->mode == 1))
        return 0;
    __atomic_add_fetch(&orders->failed, 1, __ATOMIC_SEQ_CST);
    errno = orders->error;
    return 1;
}

static int fails(int descriptor) {
    if (!orders || !orders->mode)
        return 0;
    char link[64], path[4096];
    snprintf(link, sizeof link, "/proc/self/fd/%d", descriptor);
    int kept = errno;
    ssize_t length = readlink(link, path, sizeof path - 1);
    errno = kept;
    if (length <= 0)
        return 0;
    path[length] = 0;
    return name_fails(path);
}

static int is_made(int folder, const char *path, int flags) {
    struct stat found;
    int kept = errno, is_new = (flags & O_CREAT) && fstatat(folder, path, &found, 0) != 0;
    errno = kept;
    return is_new;
}

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))
#define WRITES(result, name, parameters, arguments)              \
    result name parameters {                                     \
        static __typeof__(&name) real;                           \
        if (!real)                                               \
            real = REAL(name);                                   \
        return fails(descriptor) ? (result)-1 : real arguments;  \
    }

WRITES(ssize_t, write, (int descriptor, const void *bytes, size_t count), (descriptor, bytes, count))
WRITES(ssize_t, pwrite, (int descriptor, const void *bytes, size_t count, off_t at), (descriptor, bytes, count, at))
WRITES(ssize_t, pwrite64, (int descriptor, const void *bytes, size_t count, off64_t at), (descriptor, bytes, count, at))
WRITES(ssize_t, writev, (int descriptor, const struct iovec *parts, int count), (descriptor, parts, count))
WRITES(ssize_t, pwritev, (int descriptor, const struct iovec *parts, int count, off_t at), (descriptor, parts, count, at))
WRITES(ssize_t, pwritev64, (int descriptor, const struct iovec *parts, int count, off64_t at), (descriptor, parts, count, at))
WRITES(int, ftruncate, (int descriptor, off_t length), (descriptor, length))
WRITES(int, ftruncate64, (int descriptor, off64_t length), (descriptor, length))
WRITES(int, fsync, (int descriptor), (descriptor))
WRITES(int, fdatasync, (int descriptor), (descriptor))

#define OPENS(name)                                                       \
    int name(const char *path, int flags, ...) {                          \
        static int (*real)(const char *, int, ...);                       \
        if (!real)                                                        \
            real = dlsym(RTLD_NEXT, #name);                               \
        va_list rest;                                                     \
        va_start(rest, flags);                                            \
        mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(rest, mode_t) : 0; \
        va_end(rest);                                                     \
        if (is_made(AT_FDCWD, path, flags) && name_fails(path))           \
            return -1;                                                    \
        return real(path, flags, mode);                                   \
    }
#define OPENS_AT(name)                                                    \
    int name(int folder, const char *path, int flags, ...) {              \
        static int (*real)(int, const char *, int, ...);                  \
        if (!real)                                                        \
            real = dlsym(RTLD_NEXT, #name);                               \
        va_list rest;                                                     \
        va_start(rest, flags);                                            \
        mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(rest, mode_t) : 0; \
        va_end(rest);                                                     \
        if (is_made(folder, path, flags) && name_fails(path))             \
            return -1;                                                    \
        return real(folder, path, flags, mode);                           \
    }

OPENS(open)
OPENS(open64)
OPENS_AT(openat)
OPENS_AT(openat64)
