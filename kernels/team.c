/* The host's team of threads, as a library. */
#include "team.h"

long long gs_size(long long shares) { return gs_team_size(shares); }

/* How many threads this process has started. */
long long gs_workers(void) { return gs_team.workers; }

long long gs_run(gs_kernel *kernel, long long shares, int meet, const long long *first,
                 const long long *last, void *const *const *memory,
                 const long long *const *integer) {
    return gs_team_run(kernel, shares, meet, first, last, memory, integer);
}
