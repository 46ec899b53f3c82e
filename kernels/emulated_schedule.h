/* Who takes part in an emulated launch, and whose turn it is: a part of emulated.cpp. */
#ifndef GS_EMULATED_SCHEDULE_H
#define GS_EMULATED_SCHEDULE_H

#include <stdio.h>
#include <stdlib.h>

#include <algorithm>
#include <map>
#include <mutex>
#include <string>

#include "emulated_stacks.h"
#define EMULATED_MACHINE /* not a kernel's text */
#include "emulated.h" /* behind the system's headers: they use names that it defines */

namespace {

using emulated::Machine;
using emulated::Place;
using emulated::Product;
using emulated::Spot;
using emulated::Team;
using emulated::Word;

/* ---- who takes part ------------------------------------------------------------------------ */

struct Thread;

/* Where threads wait for each other: those that have arrived, first to last. */
struct Meeting {
    const char *what;
    Spot spot;
    Thread *first, *last;
    int arrived, votes;
    unsigned epoch;
    char sync[2]; /* what a sanitizer knows a meeting by: the next one has another address */
};

/* Lanes of a warp that name each other. */
struct Gathering : Meeting {
    unsigned mask, group; /* who is named, and who of them has arrived */
    void (*finish)(Thread *lanes, unsigned group);
};

struct Warp {
    unsigned alive;
    int used;
    Gathering gatherings[32];
};

struct Block : Team {
    Meeting meeting;
    int alive;
    Thread *first, *last; /* to run, where a block runs ahead */
};

enum State { FRESH, READY, WAITING, SPINNING, RETURNED };

struct Thread : Place {
    State state;
    Block *block;
    Warp *warp;
    Thread *next; /* at its meeting, or to run */
    Stack stack;
    void *frame, *fake, *fiber;
    const char *what; /* it waits in */
    Spot spot;
    Word value;    /* that it brings to a meeting, and takes from it */
    unsigned from; /* which lane's it takes */
    Product *product;
    bool is_patient; /* its spin may be a loop of another kind */
    bool fenced;
    const void *seen[4]; /* by its last atomics */
    unsigned seen_count;
};

struct Launch {
    void (*run)(void **);
    void **arguments;
    bool cooperative;
    long long schedule;
    Word random;
    size_t shared_bytes;
    std::string fault;
    std::vector<Thread> threads; /* of the blocks that are kept, as are their warps */
    std::vector<Block> blocks;
    std::vector<Warp> warps;
    Meeting grid;
    size_t alive;
    std::vector<Thread *> ring; /* to run: `ready` of them, from `head` on */
    size_t head, ready;
    std::vector<Thread *> spinning;
    Word clock, spun_at; /* counts what may end somebody's spin */
    int idle;
    void *frame, *fake, *fiber; /* of who launches, and the stack */
    const void *bottom;
    size_t bytes;
    char begin, end; /* the launch happens before its threads, and they before its end */
};

/* How often threads look in vain before it is called for ever: a poll that gives up by itself
 * does so before, and so does a loop of atomics that leave things as they are. */
constexpr int PATIENCE = 1 << 12, PATIENCE_WITH_ATOMICS = 1 << 18;
constexpr size_t GUARD = 256; /* bytes behind shared memory, that a kernel must leave alone */
constexpr size_t MOST_THREADS = 16384; /* alive together: a system counts its mappings */

Launch now;
Machine table;

Thread *me() { return static_cast<Thread *>(table.here); }

bool shuffled() { return now.schedule > 0; }
bool runs_ahead() { return now.schedule < 0; }

Word random_word() { /* splitmix64 */
    Word z = now.random += 0x9E3779B97F4A7C15u;
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
    return z ^ (z >> 31);
}

void happened(void *address) {
    if (__tsan_release) __tsan_release(address);
}
void see(void *address) {
    if (__tsan_acquire) __tsan_acquire(address);
}

/* ---- words --------------------------------------------------------------------------------- */

std::string at(Spot spot) {
    const char *slash = strrchr(spot.file, '/');
    return std::string(slash ? slash + 1 : spot.file) + ":" + std::to_string(spot.line);
}

size_t volume(const dim3 &d) { return (size_t)d.x * d.y * d.z; }

std::string place(const uint3 &i) {
    char text[64];
    snprintf(text, sizeof text, "(%u, %u, %u)", i.x, i.y, i.z);
    return text;
}

std::string who(const Thread *t) {
    return "thread " + place(t->index) + " of block " + place(t->team->index);
}

std::string counted(size_t n, const char *what) {
    return std::to_string(n) + " " + what + (n == 1 ? "" : "s");
}

/* Nobody can go on: where the threads are. */
std::string stuck() {
    struct Group {
        const Thread *first;
        const Team *last;
        size_t threads, blocks;
    };
    std::vector<Group> groups;
    std::map<std::string, size_t> found;
    for (const Thread &t : now.threads) {
        const std::string key = t.state == RETURNED ? "" : std::to_string(t.state) + at(t.spot);
        const auto [entry, is_new] = found.try_emplace(key, groups.size());
        if (is_new) groups.push_back({&t, nullptr, 0, 0});
        Group &g = groups[entry->second];
        ++g.threads;
        g.blocks += g.last != t.team;
        g.last = t.team;
    }
    std::string words = "no thread can go on";
    for (const Group &g : groups) {
        const Thread *const t = g.first;
        words += &g == &groups[0] ? ": " : "; ";
        words += counted(g.threads, "thread") + " of " + counted(g.blocks, "block");
        if (t->state == RETURNED) words += " returned";
        else if (t->state == WAITING) words += std::string(" in ") + t->what + " at " + at(t->spot);
        else words += " waiting at " + at(t->spot) + " for what nobody writes";
        words += ", first " + who(t);
    }
    if (!now.cooperative && volume(table.grid_dim) > 1)
        words += ". The launch is not cooperative: its blocks run one after another";
    return words;
}

/* ---- who is next --------------------------------------------------------------------------- */

void to_run(Thread *t) {
    if (t->state != FRESH) t->state = READY;
    if (runs_ahead()) {
        Block &b = *t->block;
        t->next = nullptr;
        (b.first ? b.last->next : b.first) = t;
        b.last = t;
        return;
    }
    const size_t i = now.head + now.ready++;
    now.ring[i < now.ring.size() ? i : i - now.ring.size()] = t;
}

/* Which of the blocks is to be ahead. */
long long favoured(size_t count) { return (-1 - now.schedule) % (long long)count; }

/* A thread of the block that is to be ahead, or of the next one that can run. */
Thread *taken_ahead() {
    const size_t n = now.blocks.size(), first = (size_t)favoured(n);
    for (size_t i = 0; i < n; i++) {
        Block &b = now.blocks[(first + i) % n];
        if (Thread *t = b.first) {
            b.first = t->next;
            return t;
        }
    }
    return nullptr;
}

Thread *taken() {
    if (runs_ahead()) return taken_ahead();
    if (!now.ready) return nullptr;
    const size_t size = now.ring.size();
    if (shuffled() && now.ready > 1) {
        const size_t i = now.head + (size_t)(random_word() % now.ready);
        std::swap(now.ring[now.head], now.ring[i < size ? i : i - size]);
    }
    Thread *const t = now.ring[now.head];
    if (++now.head == size) now.head = 0;
    --now.ready;
    return t;
}

void spinners_run() {
    for (Thread *t : now.spinning) to_run(t);
    now.spinning.clear();
}

/* None where all have returned, or after a fault. */
Thread *next() {
    if (Thread *t = taken()) return t;
    if (!now.spinning.empty()) {
        now.idle = now.spun_at == now.clock ? now.idle + 1 : 0;
        now.spun_at = now.clock;
        bool is_patient = false;
        for (const Thread *t : now.spinning) is_patient |= t->is_patient;
        if (now.idle <= (is_patient ? PATIENCE_WITH_ATOMICS : PATIENCE)) {
            spinners_run();
            return taken();
        }
    }
    if (now.alive) now.fault = stuck();
    return nullptr;
}

void entry();

/* Leaves for a thread, or for who launched; `frame` and `fake` are kept for the way back. */
void leave(void **frame, void **fake, Thread *to) {
    if (to && to->state == FRESH) {
        if (make_stacks(1)) {
            to->stack = stacks.back();
            stacks.pop_back();
            to->frame = first_frame(to->stack.top, entry);
            to->state = READY;
        } else {
            now.fault = "the system has no memory for another thread's stack";
            to = nullptr;
        }
    }
    table.here = to;
    if (__sanitizer_start_switch_fiber) {
        const size_t bytes = to ? (size_t)(to->stack.top - to->stack.bottom) : now.bytes;
        __sanitizer_start_switch_fiber(fake, to ? to->stack.bottom : now.bottom, bytes);
    }
    if (__tsan_switch_to_fiber) __tsan_switch_to_fiber(to ? to->fiber : now.fiber, 1);
    emulated_switch(frame, to ? to->frame : now.frame);
    if (__sanitizer_finish_switch_fiber)
        __sanitizer_finish_switch_fiber(fake ? *fake : nullptr, nullptr, nullptr);
}

/* Lets others run, until somebody puts this thread back. */
void stop(Thread *t) {
    Thread *const to = next();
    if (to != t) leave(&t->frame, &t->fake, to);
}

/* Ends the launch: its threads stay where they are. */
[[noreturn]] void end_with(std::string fault) {
    now.fault = std::move(fault);
    leave(&me()->frame, nullptr, nullptr);
    abort();
}

}  // namespace

#endif
