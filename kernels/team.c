/* The host's team of threads, as a library that runs kernels on the arrays of Python's that they are
 * for: at OF_DATA bytes from its beginning, such an object holds the address of its data. */
#include "team.h"

typedef long long gs_kernel(long long first, long long last, void *const *memory,
                            const long long *integer);

enum { GS_SHARES, GS_MEET, GS_INTEGERS, GS_POINTERS, GS_HEAD };

/* ends: per share `first` and `last`; table: how many shares there are and whether they meet, how
 * many integers and pointers each has, then per share these: of a pointer the number of an array
 * and an offset in bytes, or -1 for none. */
typedef struct {
    gs_kernel *kernel;
    const long long *ends, *table;
    char *const *arrays;
} gs_work;

static long long gs_kernel_share(const void *of, long long k) {
    const gs_work *work = (const gs_work *)of;
    const long long integers = work->table[GS_INTEGERS], pointers = work->table[GS_POINTERS];
    const long long *integer = work->table + GS_HEAD + k * (integers + 2 * pointers);
    const long long *at = integer + integers;
    void *memory[pointers + 1];
    for (long long i = 0; i < pointers; i++, at += 2)
        memory[i] = at[0] < 0 ? 0 : *(char **)(work->arrays[at[0]] + OF_DATA) + at[1];
    return work->kernel(work->ends[2 * k], work->ends[2 * k + 1], memory, integer);
}

long long gs_size(long long shares) { return gs_team_size(shares); }

/* How many threads this process has started. */
long long gs_workers(void) { return gs_team.workers; }

/* All shares; the least of what they gave. */
long long gs_run(gs_kernel *kernel, const long long *ends, const long long *table,
                 char *const *arrays) {
    const gs_work work = {kernel, ends, table, arrays};
    const long long shares = table[GS_SHARES];
    return shares == 1 ? gs_kernel_share(&work, 0)
                       : gs_team_run(gs_kernel_share, &work, shares, table[GS_MEET] != 0);
}
