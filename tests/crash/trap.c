/* Crashes a process at its n-th operation on files: it traps the system calls, so that whoever makes them is
 * seen alike: Python, Rust (safetensors), C++ (PyTorch, Arrow), and libc's own buffers.
 *
 * A seccomp filter turns each call of OPERATIONS into a signal. Its handler looks for the paths; one in the
 * watched folder is an operation: counted, noted in a log, and if it is the n-th, the process kills itself
 * before the operation, or (torn) after half of it. All else is done as it was asked for. A program that the
 * process starts is not served: it has no handler, and dies at such a call.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <ucontext.h>
#include <unistd.h>

/* Which argument is what; NO where there is none. */
enum { NO = -1 };
struct operation {
    const char *name;
    int number, folder, path, folder2, path2, file, bytes;
};
static const struct operation OPERATIONS[] = {
    {"open", SYS_open, NO, 0, NO, NO, NO, NO},
    {"open", SYS_openat, 0, 1, NO, NO, NO, NO},
    {"open", SYS_creat, NO, 0, NO, NO, NO, NO},
    {"close", SYS_close, NO, NO, NO, NO, 0, NO},
    {"write", SYS_write, NO, NO, NO, NO, 0, 2},
    {"write", SYS_pwrite64, NO, NO, NO, NO, 0, 2},
    {"write", SYS_writev, NO, NO, NO, NO, 0, NO},
    {"write", SYS_pwritev, NO, NO, NO, NO, 0, NO},
    {"write", SYS_sendfile, NO, NO, NO, NO, 0, 3},
    {"write", SYS_copy_file_range, NO, NO, NO, NO, 2, 4},
    {"truncate", SYS_truncate, NO, 0, NO, NO, NO, NO},
    {"truncate", SYS_ftruncate, NO, NO, NO, NO, 0, NO},
    {"truncate", SYS_fallocate, NO, NO, NO, NO, 0, NO},
    {"sync", SYS_fsync, NO, NO, NO, NO, 0, NO},
    {"sync", SYS_fdatasync, NO, NO, NO, NO, 0, NO},
    {"rename", SYS_rename, NO, 0, NO, 1, NO, NO},
    {"rename", SYS_renameat, 0, 1, 2, 3, NO, NO},
    {"rename", SYS_renameat2, 0, 1, 2, 3, NO, NO},
    {"link", SYS_link, NO, 0, NO, 1, NO, NO},
    {"link", SYS_linkat, 0, 1, 2, 3, NO, NO},
    {"link", SYS_symlink, NO, 1, NO, NO, NO, NO},
    {"link", SYS_symlinkat, 1, 2, NO, NO, NO, NO},
    {"unlink", SYS_unlink, NO, 0, NO, NO, NO, NO},
    {"unlink", SYS_unlinkat, 0, 1, NO, NO, NO, NO},
    {"unlink", SYS_rmdir, NO, 0, NO, NO, NO, NO},
    {"mkdir", SYS_mkdir, NO, 0, NO, NO, NO, NO},
    {"mkdir", SYS_mkdirat, 0, 1, NO, NO, NO, NO},
};
enum { MANY = sizeof OPERATIONS / sizeof *OPERATIONS };

static char watched[PATH_MAX];
static int notes, is_torn;
static long last, done;

/* The one place from which calls are let through: the filter knows its address. */
long let_through(long number, ...);
extern char behind_it[];
asm(".text\n.globl let_through\n.type let_through, @function\n"
    "let_through: mov %rdi, %rax\n mov %rsi, %rdi\n mov %rdx, %rsi\n mov %rcx, %rdx\n mov %r8, %r10\n"
    "mov %r9, %r8\n mov 8(%rsp), %r9\n syscall\n"
    ".globl behind_it\nbehind_it: ret\n");

static long call(int number, const long *a) {
    return let_through(number, a[0], a[1], a[2], a[3], a[4], a[5]);
}

/* What an open file, or AT_FDCWD, is called; empty if it has no name. */
static void name_of(int file, char *into) {
    char link[64] = "/proc/self/cwd";
    if (file != AT_FDCWD) snprintf(link, sizeof link, "/proc/self/fd/%d", file);
    long length = let_through(SYS_readlink, link, into, PATH_MAX - 1);
    into[length < 0 ? 0 : length] = 0;
}

/* A path as it is given, beside a folder or the working directory, as a whole one. */
static void resolve(const long *a, int folder, int path, char *into) {
    const char *given = (const char *)a[path];
    into[0] = 0;
    if (!given) return;
    if (given[0] != '/') {
        name_of(folder == NO ? AT_FDCWD : (int)a[folder], into);
        strncat(into, "/", PATH_MAX - strlen(into) - 1);
    }
    strncat(into, given, PATH_MAX - strlen(into) - 1);
}

/* The part of a path in the watched folder, or none. */
static const char *inside(const char *path) {
    size_t length = strlen(watched);
    if (strncmp(path, watched, length)) return NULL;
    return !path[length] ? "." : path[length] == '/' ? path + length + 1 : NULL;
}

static const char *kind(const struct operation *o, const long *a) {
    if (o->number == SYS_renameat2 && a[4] & RENAME_EXCHANGE) return "exchange";
    if (strcmp(o->name, "open")) return o->name;
    return o->number == SYS_creat || a[o->path + 1] & (O_TRUNC | O_CREAT) ? "create" : "open";
}

static void crash(const struct operation *o, long *a) {
    if (is_torn && o->bytes != NO) {
        a[o->bytes] = a[o->bytes] > 4096 && o->number != SYS_write ? 512 : a[o->bytes] / 2;
        call(o->number, a);
    } else if (is_torn && o->number == SYS_writev) {
        const struct iovec *first = (const struct iovec *)a[1];
        let_through(SYS_write, a[0], first->iov_base, first->iov_len / 2);
    }
    let_through(SYS_kill, (long)getpid(), (long)SIGKILL);
    for (;;) pause();
}

static void handle(int signal, siginfo_t *info, void *context) {
    greg_t *r = ((ucontext_t *)context)->uc_mcontext.gregs;
    long a[6] = {r[REG_RDI], r[REG_RSI], r[REG_RDX], r[REG_R10], r[REG_R8], r[REG_R9]};
    char one[PATH_MAX] = "", two[PATH_MAX] = "", line[2 * PATH_MAX + 64];
    const struct operation *o = OPERATIONS;
    (void)signal;
    while (o->number != info->si_syscall) o++;
    if (o->file != NO) name_of((int)a[o->file], one);
    else resolve(a, o->folder, o->path, one);
    if (o->path2 != NO) resolve(a, o->folder2, o->path2, two);
    const char *from = inside(one), *to = inside(two);
    if (from || to) {
        long now = __atomic_add_fetch(&done, 1, __ATOMIC_SEQ_CST);
        from = from ? from : one, to = to ? to : two;
        int length = snprintf(line, sizeof line, "%s\t%s\t%s\n", kind(o, a), from, to);
        let_through(SYS_write, (long)notes, line, (long)length);
        if (now == last) crash(o, a);
    }
    r[REG_RAX] = call(o->number, a);
}

#define LOAD(field, more) \
    (struct sock_filter) BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, field) + (more))
#define EQUAL(value, then, otherwise) /* how many lines of the filter are skipped */ \
    (struct sock_filter) BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (unsigned)(value), then, otherwise)
#define ANSWER(what) (struct sock_filter) BPF_STMT(BPF_RET | BPF_K, what)

/* Watch `folder` from now on, in all threads; note operations in the open file `log`; crash at number `at`
 * (0: never). Returns 0, or the error that forbids it. */
int watch(const char *folder, int log, long at, int torn) {
    struct sock_filter filter[MANY + 8], *f = filter;
    unsigned long address = (unsigned long)behind_it;
    snprintf(watched, sizeof watched, "%s", folder);
    notes = log, last = at, is_torn = torn;
    *f++ = LOAD(instruction_pointer, 0);
    *f++ = EQUAL(address, 0, 2);
    *f++ = LOAD(instruction_pointer, 4);
    *f++ = EQUAL(address >> 32, MANY + 1, 0);
    *f++ = LOAD(nr, 0);
    for (int i = 0; i < MANY; i++) *f++ = EQUAL(OPERATIONS[i].number, MANY - i, 0);
    *f++ = ANSWER(SECCOMP_RET_ALLOW);
    *f++ = ANSWER(SECCOMP_RET_TRAP);
    struct sock_fprog program = {(unsigned short)(f - filter), filter};
    struct sigaction action = {.sa_sigaction = handle, .sa_flags = SA_SIGINFO | SA_NODEFER | SA_RESTART};
    if (sigaction(SIGSYS, &action, NULL) || prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)) return errno;
    if (!syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_TSYNC, &program)) return 0;
    return errno ? errno : EBUSY;
}
