/*
 * LD_PRELOAD shim: logs, in their true order, all changes that a process makes to the files below one
 * folder, with their data, so that the folder can be rebuilt as it was after any of them.
 *
 * WRITELOG_DIR    the folder (no symbolic links in its path)
 * WRITELOG_LOG    file that receives the records
 * WRITELOG_FAIL   fail the n-th write (counted from 1) and none after it, or absent
 * WRITELOG_ERRNO  with this errno (default EIO)
 *
 * A process may also call writelog_fail_sync() to let the n-th sync from now on fail, and
 * writelog_fail_paths() to let all writes and syncs of some files fail until further notice.
 *
 * The path of a descriptor is asked of the kernel at every call, so duplicates and renames need no
 * table. Reserving room is logged as the change of length it makes. Copying inside the kernel is refused on files below the folder (callers fall back to writing);
 * shared writable mappings are logged as such, because their changes can't be seen.
 *
 * A record is the struct below, then the path, the second path and the data. Paths are relative.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

enum { CREATE = 1, OPEN, WRITE, TRUNCATE, RENAME, LINK, UNLINK, MKDIR, RMDIR, FSYNC, CLOSE, FAILED, MAPPED };

struct record {
    uint32_t magic, operation, path_length, second_length;
    uint64_t offset, data_length;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static char folder[PATH_MAX];
static size_t folder_length;
static int log_fd = -1;
static long fail_at, writes;
static int fail_errno;
static long fail_sync_at, syncs;
static int fail_sync_errno;
static char fail_part[64];
static int fail_part_errno;

#define REAL(type, name, ...) \
    static type (*real_##name)(__VA_ARGS__); \
    if (!real_##name) real_##name = (type (*)(__VA_ARGS__))dlsym(RTLD_NEXT, #name)

/* Start a new log, and let the n-th write from now on fail (0: none). A forked process calls this. */
int writelog_start(const char *dir, const char *log, long fail, int code)
{
    REAL(int, open, const char *, int, ...);
    snprintf(folder, sizeof folder, "%s", dir);
    folder_length = strlen(folder);
    writes = 0;
    fail_at = fail;
    fail_errno = code;
    log_fd = real_open(log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
    return log_fd < 0 ? -1 : 0;
}

/* Let the n-th sync from now on fail (0: none). */
void writelog_fail_sync(long fail, int code)
{
    pthread_mutex_lock(&lock);
    syncs = 0;
    fail_sync_at = fail;
    fail_sync_errno = code;
    pthread_mutex_unlock(&lock);
}

/* Let all writes and syncs of files whose path has `part` in it fail (an empty one: none). */
void writelog_fail_paths(const char *part, int code)
{
    pthread_mutex_lock(&lock);
    snprintf(fail_part, sizeof fail_part, "%s", part);
    fail_part_errno = code;
    pthread_mutex_unlock(&lock);
}

__attribute__((constructor)) static void start(void)
{
    const char *dir = getenv("WRITELOG_DIR"), *log = getenv("WRITELOG_LOG");
    const char *fail = getenv("WRITELOG_FAIL"), *code = getenv("WRITELOG_ERRNO");
    if (dir && log)
        writelog_start(dir, log, fail ? atol(fail) : 0, code ? atoi(code) : EIO);
}

/* Return the part of `path` behind the folder, or NULL if it lies elsewhere. */
static const char *inside(const char *path)
{
    if (log_fd < 0 || strncmp(path, folder, folder_length) || path[folder_length] != '/')
        return NULL;
    return path + folder_length + 1;
}

/* The same for an open descriptor; a file already unlinked lies elsewhere. */
static const char *inside_fd(int fd, char *buffer)
{
    char link[64];
    size_t tail = strlen(" (deleted)");
    if (log_fd < 0 || fd == log_fd)
        return NULL;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t n = readlink(link, buffer, PATH_MAX - 1);
    if (n < 0)
        return NULL;
    buffer[n] = 0;
    if ((size_t)n > tail && !strcmp(buffer + n - tail, " (deleted)"))
        return NULL;
    return inside(buffer);
}

/* The same for a path as given to a call: its folder is resolved, its last part is not. */
static const char *inside_at(int at, const char *path, char *buffer)
{
    char full[PATH_MAX * 2], base[PATH_MAX];
    if (log_fd < 0 || !path)
        return NULL;
    if (path[0] == '/') {
        snprintf(full, sizeof full, "%s", path);
    } else if (at == AT_FDCWD) {
        if (!getcwd(base, sizeof base))
            return NULL;
        snprintf(full, sizeof full, "%s/%s", base, path);
    } else {
        char link[64];
        snprintf(link, sizeof link, "/proc/self/fd/%d", at);
        ssize_t n = readlink(link, base, sizeof base - 1);
        if (n < 0)
            return NULL;
        base[n] = 0;
        snprintf(full, sizeof full, "%s/%s", base, path);
    }
    char *slash = strrchr(full, '/');
    *slash = 0;
    if (!realpath(full[0] ? full : "/", base))
        return NULL;
    snprintf(buffer, PATH_MAX, "%.*s/%.*s", (int)(PATH_MAX / 2), base, (int)(PATH_MAX / 2 - 2), slash + 1);
    return inside(buffer);
}

static void append(int operation, const char *path, const char *second, uint64_t offset, const struct iovec *parts,
                   int count, uint64_t length)
{
    REAL(ssize_t, write, int, const void *, size_t);
    struct record head = {0x574c4f47, operation, strlen(path), second ? strlen(second) : 0, offset, length};
    int saved = errno;
    real_write(log_fd, &head, sizeof head);
    real_write(log_fd, path, head.path_length);
    real_write(log_fd, second ? second : "", head.second_length);
    for (int i = 0; i < count && length; i++) {
        const char *from = parts[i].iov_base;
        size_t left = parts[i].iov_len < length ? parts[i].iov_len : length;
        length -= left;
        while (left) {
            ssize_t n = real_write(log_fd, from, left);
            if (n <= 0)
                _exit(99); /* a log with a hole would prove nothing */
            from += n;
            left -= n;
        }
    }
    errno = saved;
}

static int failed(const char *path, int code)
{
    append(FAILED, path, NULL, 0, NULL, 0, 0);
    pthread_mutex_unlock(&lock);
    errno = code;
    return 1;
}

/* Take the lock for one write; true if this is the one to fail. */
static int fails(const char *path)
{
    pthread_mutex_lock(&lock);
    if (fail_part[0] && strstr(path, fail_part))
        return failed(path, fail_part_errno);
    if (!fail_at || ++writes != fail_at)
        return 0;
    return failed(path, fail_errno);
}

/* The same for one sync. */
static int sync_fails(const char *path)
{
    pthread_mutex_lock(&lock);
    if (!path)
        return 0;
    if (fail_part[0] && strstr(path, fail_part))
        return failed(path, fail_part_errno);
    if (!fail_sync_at || ++syncs != fail_sync_at)
        return 0;
    return failed(path, fail_sync_errno);
}

/* The path of a descriptor; the folder itself is "". */
static const char *inside_or_root(int fd, char *buffer)
{
    const char *path = inside_fd(fd, buffer);
    return path || log_fd < 0 || strcmp(buffer, folder) ? path : "";
}

/* ---- opening ---- */

static int opened(int fd, int flags, int existed)
{
    char buffer[PATH_MAX];
    const char *path = fd < 0 ? NULL : inside_fd(fd, buffer);
    struct stat info;
    if (path && !fstat(fd, &info) && S_ISREG(info.st_mode)) {
        append(existed ? OPEN : CREATE, path, NULL, flags, NULL, 0, 0);
        if (existed && flags & O_TRUNC)
            append(TRUNCATE, path, NULL, 0, NULL, 0, 0);
    }
    pthread_mutex_unlock(&lock);
    return fd;
}

static int exists(int at, const char *path)
{
    struct stat info;
    int saved = errno, found = !fstatat(at, path, &info, 0);
    errno = saved;
    pthread_mutex_lock(&lock);
    return found;
}

#define MODE_ARGUMENT \
    va_list list; \
    va_start(list, flags); \
    mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(list, mode_t) : 0; \
    va_end(list)

#define OPEN_CALL(name) \
    int name(const char *path, int flags, ...) \
    { \
        MODE_ARGUMENT; \
        REAL(int, name, const char *, int, ...); \
        int existed = exists(AT_FDCWD, path); \
        return opened(real_##name(path, flags, mode), flags, existed); \
    }
OPEN_CALL(open)
OPEN_CALL(open64)

#define OPENAT_CALL(name) \
    int name(int at, const char *path, int flags, ...) \
    { \
        MODE_ARGUMENT; \
        REAL(int, name, int, const char *, int, ...); \
        int existed = exists(at, path); \
        return opened(real_##name(at, path, flags, mode), flags, existed); \
    }
OPENAT_CALL(openat)
OPENAT_CALL(openat64)

int creat(const char *path, mode_t mode) { return open(path, O_CREAT | O_WRONLY | O_TRUNC, mode); }
int creat64(const char *path, mode_t mode) { return open(path, O_CREAT | O_WRONLY | O_TRUNC, mode); }

int close(int fd)
{
    REAL(int, close, int);
    char buffer[PATH_MAX];
    const char *path = inside_fd(fd, buffer);
    if (path) {
        pthread_mutex_lock(&lock);
        append(CLOSE, path, NULL, 0, NULL, 0, 0);
        pthread_mutex_unlock(&lock);
    }
    return real_close(fd);
}

/* ---- data ---- */

static ssize_t wrote(ssize_t n, const char *path, off_t offset, const struct iovec *parts, int count)
{
    if (n > 0)
        append(WRITE, path, NULL, offset, parts, count, n);
    pthread_mutex_unlock(&lock);
    return n;
}

/* Where the last `n` bytes written at the descriptor's own position went. */
static off_t behind(int fd, ssize_t n) { return lseek(fd, 0, SEEK_CUR) - (n > 0 ? n : 0); }

ssize_t write(int fd, const void *data, size_t length)
{
    REAL(ssize_t, write, int, const void *, size_t);
    char buffer[PATH_MAX];
    const char *path = inside_fd(fd, buffer);
    if (!path)
        return real_write(fd, data, length);
    if (fails(path))
        return -1;
    struct iovec part = {(void *)data, length};
    ssize_t n = real_write(fd, data, length);
    return wrote(n, path, behind(fd, n), &part, 1);
}

ssize_t writev(int fd, const struct iovec *parts, int count)
{
    REAL(ssize_t, writev, int, const struct iovec *, int);
    char buffer[PATH_MAX];
    const char *path = inside_fd(fd, buffer);
    if (!path)
        return real_writev(fd, parts, count);
    if (fails(path))
        return -1;
    ssize_t n = real_writev(fd, parts, count);
    return wrote(n, path, behind(fd, n), parts, count);
}

#define PWRITE_CALL(name) \
    ssize_t name(int fd, const void *data, size_t length, off_t offset) \
    { \
        REAL(ssize_t, name, int, const void *, size_t, off_t); \
        char buffer[PATH_MAX]; \
        const char *path = inside_fd(fd, buffer); \
        if (!path) \
            return real_##name(fd, data, length, offset); \
        if (fails(path)) \
            return -1; \
        struct iovec part = {(void *)data, length}; \
        return wrote(real_##name(fd, data, length, offset), path, offset, &part, 1); \
    }
PWRITE_CALL(pwrite)
PWRITE_CALL(pwrite64)

#define PWRITEV_CALL(name) \
    ssize_t name(int fd, const struct iovec *parts, int count, off_t offset) \
    { \
        REAL(ssize_t, name, int, const struct iovec *, int, off_t); \
        char buffer[PATH_MAX]; \
        const char *path = inside_fd(fd, buffer); \
        if (!path) \
            return real_##name(fd, parts, count, offset); \
        if (fails(path)) \
            return -1; \
        return wrote(real_##name(fd, parts, count, offset), path, offset, parts, count); \
    }
PWRITEV_CALL(pwritev)
PWRITEV_CALL(pwritev64)

#define PWRITEV2_CALL(name) \
    ssize_t name(int fd, const struct iovec *parts, int count, off_t offset, int flags) \
    { \
        REAL(ssize_t, name, int, const struct iovec *, int, off_t, int); \
        char buffer[PATH_MAX]; \
        const char *path = inside_fd(fd, buffer); \
        if (!path) \
            return real_##name(fd, parts, count, offset, flags); \
        if (fails(path)) \
            return -1; \
        return wrote(real_##name(fd, parts, count, offset, flags), path, offset, parts, count); \
    }
PWRITEV2_CALL(pwritev2)
PWRITEV2_CALL(pwritev64v2)

/* ---- calls that only succeed or fail ---- */

static int noted(int result, int operation, const char *path, const char *second, off_t offset)
{
    if (!result && (path || second))
        append(operation, path ? path : "", second, offset, NULL, 0, 0);
    pthread_mutex_unlock(&lock);
    return result;
}

#define FTRUNCATE_CALL(name) \
    int name(int fd, off_t length) \
    { \
        REAL(int, name, int, off_t); \
        char buffer[PATH_MAX]; \
        const char *path = inside_fd(fd, buffer); \
        pthread_mutex_lock(&lock); \
        return noted(real_##name(fd, length), TRUNCATE, path, NULL, length); \
    }
FTRUNCATE_CALL(ftruncate)
FTRUNCATE_CALL(ftruncate64)

#define TRUNCATE_CALL(name) \
    int name(const char *given, off_t length) \
    { \
        REAL(int, name, const char *, off_t); \
        char buffer[PATH_MAX]; \
        const char *path = inside_at(AT_FDCWD, given, buffer); \
        pthread_mutex_lock(&lock); \
        return noted(real_##name(given, length), TRUNCATE, path, NULL, length); \
    }
TRUNCATE_CALL(truncate)
TRUNCATE_CALL(truncate64)

#define SYNC_CALL(name) \
    int name(int fd) \
    { \
        REAL(int, name, int); \
        char buffer[PATH_MAX]; \
        buffer[0] = 0; \
        const char *path = inside_or_root(fd, buffer); \
        if (sync_fails(path)) \
            return -1; \
        return noted(real_##name(fd), FSYNC, path, NULL, 0); \
    }
SYNC_CALL(fsync)
SYNC_CALL(fdatasync)

#define TWO_PATHS(operation, from_at, from, to_at, to, call) \
    char first_buffer[PATH_MAX], second_buffer[PATH_MAX]; \
    const char *first = inside_at(from_at, from, first_buffer); \
    const char *second = inside_at(to_at, to, second_buffer); \
    pthread_mutex_lock(&lock); \
    return noted(call, operation, first, second, 0)

int rename(const char *from, const char *to)
{
    REAL(int, rename, const char *, const char *);
    TWO_PATHS(RENAME, AT_FDCWD, from, AT_FDCWD, to, real_rename(from, to));
}

int renameat(int from_at, const char *from, int to_at, const char *to)
{
    REAL(int, renameat, int, const char *, int, const char *);
    TWO_PATHS(RENAME, from_at, from, to_at, to, real_renameat(from_at, from, to_at, to));
}

int renameat2(int from_at, const char *from, int to_at, const char *to, unsigned flags)
{
    REAL(int, renameat2, int, const char *, int, const char *, unsigned);
    TWO_PATHS(RENAME, from_at, from, to_at, to, real_renameat2(from_at, from, to_at, to, flags));
}

int link(const char *from, const char *to)
{
    REAL(int, link, const char *, const char *);
    TWO_PATHS(LINK, AT_FDCWD, from, AT_FDCWD, to, real_link(from, to));
}

int linkat(int from_at, const char *from, int to_at, const char *to, int flags)
{
    REAL(int, linkat, int, const char *, int, const char *, int);
    TWO_PATHS(LINK, from_at, from, to_at, to, real_linkat(from_at, from, to_at, to, flags));
}

#define ONE_PATH(operation, at, given, call) \
    char buffer[PATH_MAX]; \
    const char *path = inside_at(at, given, buffer); \
    pthread_mutex_lock(&lock); \
    return noted(call, operation, path, NULL, 0)

int unlink(const char *path_)
{
    REAL(int, unlink, const char *);
    ONE_PATH(UNLINK, AT_FDCWD, path_, real_unlink(path_));
}

int unlinkat(int at, const char *path_, int flags)
{
    REAL(int, unlinkat, int, const char *, int);
    ONE_PATH(flags & AT_REMOVEDIR ? RMDIR : UNLINK, at, path_, real_unlinkat(at, path_, flags));
}

int rmdir(const char *path_)
{
    REAL(int, rmdir, const char *);
    ONE_PATH(RMDIR, AT_FDCWD, path_, real_rmdir(path_));
}

int mkdir(const char *path_, mode_t mode)
{
    REAL(int, mkdir, const char *, mode_t);
    ONE_PATH(MKDIR, AT_FDCWD, path_, real_mkdir(path_, mode));
}

/* ---- ways around: refused, or at least seen ---- */

ssize_t sendfile64(int to, int from, off_t *offset, size_t count)
{
    REAL(ssize_t, sendfile64, int, int, off_t *, size_t);
    char buffer[PATH_MAX];
    if (!inside_fd(to, buffer))
        return real_sendfile64(to, from, offset, count);
    errno = EINVAL;
    return -1;
}
ssize_t sendfile(int to, int from, off_t *offset, size_t count) { return sendfile64(to, from, offset, count); }

ssize_t copy_file_range(int from, off_t *from_offset, int to, off_t *to_offset, size_t length, unsigned flags)
{
    REAL(ssize_t, copy_file_range, int, off_t *, int, off_t *, size_t, unsigned);
    char buffer[PATH_MAX];
    if (!inside_fd(to, buffer))
        return real_copy_file_range(from, from_offset, to, to_offset, length, flags);
    errno = EXDEV;
    return -1;
}

#define FALLOCATE_CALL(name) \
    int name(int fd, int mode, off_t offset, off_t length) \
    { \
        REAL(int, name, int, int, off_t, off_t); \
        char buffer[PATH_MAX]; \
        if (!inside_fd(fd, buffer)) \
            return real_##name(fd, mode, offset, length); \
        errno = EOPNOTSUPP; \
        return -1; \
    }
FALLOCATE_CALL(fallocate)
FALLOCATE_CALL(fallocate64)

#define POSIX_FALLOCATE_CALL(name) \
    int name(int fd, off_t offset, off_t length) \
    { \
        REAL(int, name, int, off_t, off_t); \
        char buffer[PATH_MAX]; \
        struct stat info; \
        const char *path = inside_fd(fd, buffer); \
        pthread_mutex_lock(&lock); \
        int grows = path && !fstat(fd, &info) && info.st_size < offset + length; \
        int code = real_##name(fd, offset, length); \
        noted(code || !grows, TRUNCATE, path, NULL, offset + length); \
        return code; \
    }
POSIX_FALLOCATE_CALL(posix_fallocate)
POSIX_FALLOCATE_CALL(posix_fallocate64)

#define MMAP_CALL(name) \
    void *name(void *address, size_t length, int protection, int flags, int fd, off_t offset) \
    { \
        REAL(void *, name, void *, size_t, int, int, int, off_t); \
        char buffer[PATH_MAX]; \
        const char *path = fd >= 0 && flags & MAP_SHARED && protection & PROT_WRITE ? inside_fd(fd, buffer) : NULL; \
        if (path) { \
            pthread_mutex_lock(&lock); \
            append(MAPPED, path, NULL, offset, NULL, 0, 0); \
            pthread_mutex_unlock(&lock); \
        } \
        return real_##name(address, length, protection, flags, fd, offset); \
    }
MMAP_CALL(mmap)
MMAP_CALL(mmap64)
