/* Threads of the host that run the shares of one kernel, and the place where they meet.
 *
 * The workers are started once, block every signal, and know nothing of Python. Between two runs
 * they spin for a moment and then sleep. A forked process starts its own. */
#ifndef GS_TEAM_H
#define GS_TEAM_H

#include "meetings.h"
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <unistd.h>

typedef long long gs_kernel(long long first, long long last, void *const *memory,
                            const long long *integer);

#define GS_TEAM_MOST 256 /* threads */
#define GS_TEAM_SPINS 2000

static struct {
    pthread_mutex_t busy; /* one run at a time */
    pthread_mutex_t sleep;
    pthread_cond_t wake;
    pid_t process;
    long long workers;
    unsigned long long round; /* the number of the run, times GS_TEAM_MOST, plus its shares - 1 */
    long long pending;        /* shares of the workers that have not ended */
    gs_kernel *kernel;
    const long long *first, *last;
    void *const *const *memory;
    const long long *const *integer;
    long long result[GS_TEAM_MOST];
} gs_team = {.busy = PTHREAD_MUTEX_INITIALIZER,
             .sleep = PTHREAD_MUTEX_INITIALIZER,
             .wake = PTHREAD_COND_INITIALIZER};

static void gs_team_share(long long k) {
    gs_team.result[k] = gs_team.kernel(gs_team.first[k], gs_team.last[k], gs_team.memory[k],
                                       gs_team.integer[k]);
}

static void *gs_team_work(void *argument) {
    const long long me = (long long)argument;
    unsigned long long seen = 0;
    for (;;) {
        unsigned long long round;
        for (int i = 0; i < GS_TEAM_SPINS; i++) {
            if ((round = __atomic_load_n(&gs_team.round, __ATOMIC_ACQUIRE)) != seen) break;
            gs_pause();
        }
        if (round == seen) {
            pthread_mutex_lock(&gs_team.sleep);
            while ((round = __atomic_load_n(&gs_team.round, __ATOMIC_ACQUIRE)) == seen)
                pthread_cond_wait(&gs_team.wake, &gs_team.sleep);
            pthread_mutex_unlock(&gs_team.sleep);
        }
        seen = round;
        if (me > (long long)(round % GS_TEAM_MOST)) continue; /* not in this run */
        gs_team_share(me);
        __atomic_sub_fetch(&gs_team.pending, 1, __ATOMIC_ACQ_REL);
    }
    return 0;
}

/* Workers up to number `most`; fewer where the system gives no more. */
static void gs_team_grow(long long most) {
    if (gs_team.process != getpid()) { /* the first run, or the first one after a fork */
        gs_team.process = getpid();
        gs_team.workers = 0;
        gs_team.round = 0;
        pthread_mutex_init(&gs_team.sleep, 0);
        pthread_cond_init(&gs_team.wake, 0);
    }
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before); /* interrupts are for the caller */
    while (gs_team.workers < most) {
        pthread_t thread;
        if (pthread_create(&thread, 0, gs_team_work, (void *)(gs_team.workers + 1))) break;
        pthread_detach(thread);
        gs_team.workers++;
    }
    pthread_sigmask(SIG_SETMASK, &before, 0);
}

/* Makes sure of `shares` threads with the caller; gives how many there are. */
static long long gs_team_size(long long shares) {
    if (shares > GS_TEAM_MOST) shares = GS_TEAM_MOST;
    if (shares < 2) return 1;
    static pid_t locked_in; /* a lock that another process's thread held is nobody's here */
    if (locked_in != getpid()) {
        locked_in = getpid();
        pthread_mutex_init(&gs_team.busy, 0);
    }
    pthread_mutex_lock(&gs_team.busy);
    gs_team_grow(shares - 1);
    const long long found = gs_team.workers + 1;
    pthread_mutex_unlock(&gs_team.busy);
    return found < shares ? found : shares;
}

/* The shares side by side, share 0 by the caller; the least of what they gave. There must be as
 * many threads: gs_team_size says. */
static long long gs_team_run(gs_kernel *kernel, long long shares, const long long *first,
                             const long long *last, void *const *const *memory,
                             const long long *const *integer) {
    if (shares == 1) return kernel(first[0], last[0], memory[0], integer[0]);
    pthread_mutex_lock(&gs_team.busy);
    gs_team.kernel = kernel;
    gs_team.first = first, gs_team.last = last;
    gs_team.memory = memory, gs_team.integer = integer;
    gs_team.pending = shares - 1;
    const unsigned long long next = gs_team.round / GS_TEAM_MOST + 1;
    pthread_mutex_lock(&gs_team.sleep);
    __atomic_store_n(&gs_team.round, next * GS_TEAM_MOST + (unsigned long long)(shares - 1),
                     __ATOMIC_RELEASE);
    pthread_cond_broadcast(&gs_team.wake);
    pthread_mutex_unlock(&gs_team.sleep);
    gs_team_share(0);
    for (long long i = 0; __atomic_load_n(&gs_team.pending, __ATOMIC_ACQUIRE); i++)
        if (i < GS_TEAM_SPINS) gs_pause();
        else sched_yield();
    long long least = gs_team.result[0];
    for (long long k = 1; k < shares; k++)
        if (gs_team.result[k] < least) least = gs_team.result[k];
    pthread_mutex_unlock(&gs_team.busy);
    return least;
}

#endif
