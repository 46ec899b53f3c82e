/* Threads of the host that run the shares of one piece of work.
 *
 * The workers are started once, block every signal, and know nothing of Python. Between two runs
 * they spin for a moment and then sleep. A forked process starts its own. A share that no worker
 * has come to is done by the caller, unless the shares meet each other. */
#ifndef GS_TEAM_H
#define GS_TEAM_H

#include "meetings.h"
#include <pthread.h>
#include <sched.h>
#include <signal.h>

typedef long long gs_share(const void *work, long long k);

#define GS_TEAM_MOST 256   /* threads */
#define GS_TEAM_SPINS 20000 /* before a worker sleeps, and the caller leaves its core to others */

static struct {
    pthread_mutex_t busy; /* one run at a time */
    pthread_mutex_t sleep;
    pthread_cond_t wake;
    long long workers;
    unsigned long long runs; /* how many there were, */
    unsigned long long open; /* and the number of the one that workers may join, or 0 */
    long long inside;        /* workers that have joined, or are about to */
    long long shares, next, left;
    int meet;
    gs_share *share;
    const void *work;
    long long result[GS_TEAM_MOST];
} gs_team = {.busy = PTHREAD_MUTEX_INITIALIZER,
             .sleep = PTHREAD_MUTEX_INITIALIZER,
             .wake = PTHREAD_COND_INITIALIZER};

static void gs_team_share(long long k) {
    gs_team.result[k] = gs_team.share(gs_team.work, k);
    __atomic_sub_fetch(&gs_team.left, 1, __ATOMIC_ACQ_REL);
}

/* What number `me` does of a run: its own share, or one after the other until none is left. */
static void gs_team_take(long long me) {
    if (gs_team.meet) {
        if (me < gs_team.shares) gs_team_share(me);
        return;
    }
    long long k;
    while ((k = __atomic_fetch_add(&gs_team.next, 1, __ATOMIC_ACQ_REL)) < gs_team.shares)
        gs_team_share(k);
}

static inline int gs_team_new(unsigned long long seen, unsigned long long *run) {
    *run = __atomic_load_n(&gs_team.open, __ATOMIC_SEQ_CST);
    return *run && *run != seen;
}

static void *gs_team_work(void *argument) {
    const long long me = (long long)argument;
    unsigned long long seen = 0, run;
    for (;;) {
        int found = 0;
        for (int i = 0; i < GS_TEAM_SPINS && !(found = gs_team_new(seen, &run)); i++) gs_pause();
        if (!found) {
            pthread_mutex_lock(&gs_team.sleep);
            while (!gs_team_new(seen, &run)) pthread_cond_wait(&gs_team.wake, &gs_team.sleep);
            pthread_mutex_unlock(&gs_team.sleep);
        }
        __atomic_add_fetch(&gs_team.inside, 1, __ATOMIC_SEQ_CST);
        if (__atomic_load_n(&gs_team.open, __ATOMIC_SEQ_CST) == run) {
            seen = run;
            gs_team_take(me);
        }
        __atomic_sub_fetch(&gs_team.inside, 1, __ATOMIC_SEQ_CST);
    }
    return 0;
}

/* In a forked process none of the workers is there, and nobody holds the locks. */
static void gs_team_alone(void) {
    gs_team.workers = gs_team.inside = 0;
    gs_team.open = 0;
    pthread_mutex_init(&gs_team.busy, 0);
    pthread_mutex_init(&gs_team.sleep, 0);
    pthread_cond_init(&gs_team.wake, 0);
}

static __attribute__((constructor)) void gs_team_at_fork(void) {
    pthread_atfork(0, 0, gs_team_alone);
}

/* Makes sure of as many threads as there are shares, the caller among them; gives how many there
 * are, which is fewer where the system gives no more. */
static long long gs_team_size(long long shares) {
    if (shares > GS_TEAM_MOST) shares = GS_TEAM_MOST;
    if (shares <= gs_team.workers + 1) return shares;
    sigset_t all, before;
    sigfillset(&all);
    pthread_mutex_lock(&gs_team.busy);
    pthread_sigmask(SIG_SETMASK, &all, &before); /* interrupts are for the caller */
    while (gs_team.workers + 1 < shares) {
        pthread_t thread;
        if (pthread_create(&thread, 0, gs_team_work, (void *)(gs_team.workers + 1))) break;
        pthread_detach(thread);
        gs_team.workers++;
    }
    pthread_sigmask(SIG_SETMASK, &before, 0);
    const long long found = gs_team.workers + 1;
    pthread_mutex_unlock(&gs_team.busy);
    return found < shares ? found : shares;
}

static void (*gs_team_meanwhile)(void); /* what a caller does now and then while it waits */

static void gs_team_wait(const long long *until_0) {
    for (int i = 0; __atomic_load_n(until_0, __ATOMIC_SEQ_CST); i++)
        if (i < GS_TEAM_SPINS) gs_pause();
        else {
            sched_yield();
            if (gs_team_meanwhile) gs_team_meanwhile();
        }
}

/* All shares; the least of what they gave. `meet`: they wait for each other, so there must be as
 * many threads (gs_team_size), and where another thread's run is under way this one waits for it.
 * Otherwise the caller does them alone then. */
static long long gs_team_run(gs_share *share, const void *work, long long shares, int meet) {
    if (meet) pthread_mutex_lock(&gs_team.busy);
    else if (pthread_mutex_trylock(&gs_team.busy)) {
        long long least = share(work, 0);
        for (long long k = 1; k < shares; k++) {
            const long long found = share(work, k);
            least = found < least ? found : least;
        }
        return least;
    }
    gs_team.share = share, gs_team.work = work, gs_team.meet = meet;
    gs_team.shares = gs_team.left = shares, gs_team.next = 0;
    pthread_mutex_lock(&gs_team.sleep);
    __atomic_store_n(&gs_team.open, ++gs_team.runs, __ATOMIC_SEQ_CST);
    pthread_cond_broadcast(&gs_team.wake);
    pthread_mutex_unlock(&gs_team.sleep);
    gs_team_take(0);
    gs_team_wait(&gs_team.left);
    __atomic_store_n(&gs_team.open, 0, __ATOMIC_SEQ_CST);
    gs_team_wait(&gs_team.inside);
    long long least = gs_team.result[0];
    for (long long k = 1; k < shares; k++)
        if (gs_team.result[k] < least) least = gs_team.result[k];
    pthread_mutex_unlock(&gs_team.busy);
    return least;
}

#endif
