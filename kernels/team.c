/* The host's team of threads, as a library that runs kernels on the arrays of Python's that they are
 * for: at OF_DATA bytes from its beginning, such an object holds the address of its data. */
#include "team.h"
#include "watch.h"

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

/* All shares; the least of what they gave. With the interpreter's lock. */
long long gs_run(gs_kernel *kernel, const long long *ends, const long long *table,
                 char *const *arrays) {
    gs_call call = {.watch = {[GS_ASK] = (long long)gs_ask}, .asked = gs_now()};
    const gs_work work = {kernel, ends, table, arrays, call.watch};
    const long long shares = table[GS_SHARES];
    gs_call *const outer = gs_under_way;
    gs_under_way = &call;
    call.state = gs_python.save();
    const long long least = shares == 1
        ? gs_kernel_share(&work, 0)
        : gs_team_run(gs_kernel_share, &work, shares, table[GS_MEET] != 0);
    gs_python.restore(call.state);
    gs_under_way = outer;
    return least;
}
