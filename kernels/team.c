/* The host's team of threads, as a library that runs kernels on the arrays of Python's that they are
 * for: at OF_DATA bytes from its beginning, such an object holds the address of its data. */
#include "team.h"
#include "watch.h"
#include <string.h>

typedef long long gs_kernel(long long first, long long last, void *const *memory,
                            const long long *integer);

enum { GS_SHARES, GS_MEET, GS_INTEGERS, GS_POINTERS, GS_HEAD };
enum { GS_NO_PLACE = -1, GS_WATCH_PLACE = -2 };

#define GS_BREATH 200000000 /* nanoseconds between two chances to interrupt a call */

/* ends: per share `first` and `last`; table: how many shares there are and whether they meet, how
 * many integers and pointers each has, then per share these: of a pointer the number of an array
 * and an offset in bytes, or -1 for none and -2 for the watch. */
typedef struct {
    gs_kernel *kernel;
    const long long *ends, *table;
    char *const *arrays;
    long long *watch;
} gs_work;

static long long gs_kernel_share(const void *of, long long k) {
    const gs_work *work = (const gs_work *)of;
    const long long integers = work->table[GS_INTEGERS], pointers = work->table[GS_POINTERS];
    const long long *integer = work->table + GS_HEAD + k * (integers + 2 * pointers);
    const long long *at = integer + integers;
    void *memory[pointers + 1];
    for (long long i = 0; i < pointers; i++, at += 2)
        memory[i] = at[0] == GS_NO_PLACE      ? 0
                    : at[0] == GS_WATCH_PLACE ? (char *)work->watch
                                              : *(char **)(work->arrays[at[0]] + OF_DATA) + at[1];
    return work->kernel(work->ends[2 * k], work->ends[2 * k + 1], memory, integer);
}

/* ---- interrupts --------------------------------------------------------------------------------
 *
 * A call is made with the interpreter's lock, which it gives back while it runs. Now and then the
 * thread that made it takes the lock to have Python's signal handlers run; if one raises, the call
 * is left, and what it raised is there when it returns. */

static struct {
    void *(*save)(void); /* PyEval_SaveThread */
    void (*restore)(void *);
    int (*check)(void); /* PyErr_CheckSignals */
} gs_python;

typedef struct {
    long long watch[GS_WATCH];
    void *state; /* the thread's, as Python has it */
    long long asked;
} gs_call;

static __thread gs_call *gs_under_way; /* this thread's call; a worker has none */

static void gs_ask(long long now) {
    gs_call *call = gs_under_way;
    if (!call || now - call->asked < GS_BREATH || call->watch[GS_IS_LEFT]) return;
    gs_python.restore(call->state);
    if (gs_python.check()) __atomic_store_n(call->watch + GS_IS_LEFT, 1, __ATOMIC_RELAXED);
    call->state = gs_python.save();
    call->asked = gs_now();
}

static void gs_ask_while_waiting(void) { gs_ask(gs_now()); }

void gs_init(void *(*save)(void), void (*restore)(void *), int (*check)(void)) {
    gs_python.save = save, gs_python.restore = restore, gs_python.check = check;
    gs_team_meanwhile = gs_ask_while_waiting;
}

/* ---- runs ------------------------------------------------------------------------------------ */

/* As gs_team_size; within a call, so of a signal handler's, there is none but the caller: the
 * others may have to wait for that call. */
long long gs_size(long long shares) { return gs_under_way ? 1 : gs_team_size(shares); }

/* How many threads this process has started. */
long long gs_workers(void) { return gs_team.workers; }

static long long gs_all_shares(gs_call *call, gs_kernel *kernel, const long long *ends,
                               const long long *table, char *const *arrays) {
    const gs_work work = {kernel, ends, table, arrays, call->watch};
    const long long shares = table[GS_SHARES];
    return shares == 1 ? gs_kernel_share(&work, 0)
                       : gs_team_run(gs_kernel_share, &work, shares, table[GS_MEET] != 0);
}

/* All shares; the least of what they gave. With the interpreter's lock. */
long long gs_run(gs_kernel *kernel, const long long *ends, const long long *table,
                 char *const *arrays) {
    gs_call call = {.watch = {[GS_ASK] = (long long)gs_ask}, .asked = gs_now()};
    gs_call *const outer = gs_under_way;
    gs_under_way = &call;
    call.state = gs_python.save();
    const long long least = gs_all_shares(&call, kernel, ends, table, arrays);
    gs_python.restore(call.state);
    gs_under_way = outer;
    return least;
}

/* ---- runs that are made again -------------------------------------------------------------------
 *
 * A script: how many runs there are, and how many arrays have to be aligned; per such array its
 * number, and the bits that its address has not; per run the kernel, what it is to give, the
 * number of its shares, and how many integers follow: `ends` and `table`. */

enum { GS_RUNS, GS_ALIGNED, GS_SCRIPT_HEAD };
enum { GS_KERNEL, GS_EXPECTED, GS_SHARES_OF_RUN, GS_LENGTH, GS_RUN_HEAD };

/* How many runs gave what they were to; none is made behind one that did not. -1 where there are to
 * be none: an array is not aligned, or the call is within another one, a signal handler's. spent:
 * 0, or the nanoseconds that each run took. With the interpreter's lock. */
long long gs_play(const long long *script, char *const *arrays, long long *spent) {
    const long long runs = script[GS_RUNS], *at = script + GS_SCRIPT_HEAD;
    if (gs_under_way) return -1;
    for (long long i = 0; i < script[GS_ALIGNED]; i++, at += 2)
        if (*(long long *)(arrays[at[0]] + OF_DATA) & at[1]) return -1;
    gs_call call = {.watch = {[GS_ASK] = (long long)gs_ask}, .asked = gs_now()};
    gs_under_way = &call;
    call.state = gs_python.save();
    long long done = 0;
    struct timespec began, ended;
    if (spent) clock_gettime(CLOCK_MONOTONIC, &began);
    for (; done < runs && !call.watch[GS_IS_LEFT]; done++) {
        const long long *const ends = at + GS_RUN_HEAD;
        const long long shares = at[GS_SHARES_OF_RUN];
        const long long *const table = ends + 2 * shares;
        if (shares > 1 && gs_team_size(shares) < shares && table[GS_MEET]) break;
        gs_kernel *const kernel = (gs_kernel *)at[GS_KERNEL];
        if (gs_all_shares(&call, kernel, ends, table, arrays) != at[GS_EXPECTED]) break;
        if (spent) {
            clock_gettime(CLOCK_MONOTONIC, &ended);
            spent[done] =
                (ended.tv_sec - began.tv_sec) * 1000000000ll + ended.tv_nsec - began.tv_nsec;
            began = ended;
        }
        at = ends + at[GS_LENGTH];
        gs_ask(gs_now());
    }
    gs_python.restore(call.state);
    gs_under_way = 0;
    return done;
}

/* ---- copies ---------------------------------------------------------------------------------- */

static void gs_copy_axes(char *to, const char *from, long long item, long long axes,
                         const long long *axis) {
    const long long count = axis[0], at = axis[1], of = axis[2];
    if (axes > 1)
        for (long long i = 0; i < count; i++)
            gs_copy_axes(to + i * at, from + i * of, item, axes - 1, axis + 3);
    else if (at == item && of == item)
        memcpy(to, from, (size_t)(count * item));
    else if (item == 4)
        for (long long i = 0; i < count; i++) memcpy(to + i * at, from + i * of, 4);
    else
        for (long long i = 0; i < count; i++) memcpy(to + i * at, from + i * of, (size_t)item);
}

/* A kernel that copies an array. memory: to where and from where; integer: the bytes of an element,
 * the number of axes, and per axis its size and in bytes both strides. */
long long gs_copy(long long first, long long last, void *const *memory, const long long *integer) {
    (void)first, (void)last;
    gs_copy_axes((char *)memory[0], (const char *)memory[1], integer[0], integer[1], integer + 2);
    return 0;
}
