/* The machine behind emulated.h: every CUDA thread is a fiber of the system thread that launches.
 *
 * A thread runs until it meets others, spins or returns; a schedule says who is next. So all
 * blocks of a cooperative launch are alive together, a run can be repeated, and a meeting that
 * cannot happen is found without a clock: nobody is left to run.
 *
 * Built without ThreadSanitizer even where kernels are built with it: what this file touches is
 * the machine. What happens before what is told to it at meetings, and there only. */
#include "emulated_schedule.h"

namespace {

/* ---- meetings ------------------------------------------------------------------------------ */

void arrive(Meeting &m, Thread *t, const char *what, Spot spot) {
    if (m.arrived && (m.spot.line != spot.line || strcmp(m.spot.file, spot.file)))
        end_with("threads wait for each other at different lines: " + who(m.first) + " in " +
                 m.what + " at " + at(m.spot) + ", " + who(t) + " in " + what + " at " + at(spot));
    m.what = t->what = what;
    m.spot = t->spot = spot;
    ++m.arrived;
}

/* For those that are still to come. */
void wait(Meeting &m, Thread *t) {
    t->state = WAITING;
    t->next = nullptr;
    (m.first ? m.last->next : m.first) = t;
    m.last = t;
    stop(t);
}

/* All have come: those that waited may run. */
void hold(Meeting &m) {
    for (Thread *t = m.first; t;) {
        Thread *const after = t->next; /* to_run uses the link, too */
        to_run(t);
        t = after;
    }
    m.first = m.last = nullptr;
    m.arrived = m.votes = 0;
    ++m.epoch;
    ++now.clock;
}

/* The last to arrive goes on at once, unless that is a matter of chance. */
void go_on(Thread *t) {
    if (!shuffled()) return;
    to_run(t);
    stop(t);
}

void hold_block(Meeting &m) {
    for (Thread *t = m.first; t; t = t->next) t->value = (Word)m.votes;
    hold(m);
}

int meet_block(int vote, const char *what, Spot spot) {
    Thread *const t = me();
    Meeting &m = t->block->meeting;
    arrive(m, t, what, spot);
    m.votes += vote;
    char *const sync = &m.sync[m.epoch & 1];
    happened(sync);
    if (m.arrived < t->block->alive) wait(m, t);
    else {
        t->value = (Word)m.votes;
        hold_block(m);
        go_on(t);
    }
    see(sync);
    return (int)t->value;
}

void meet_grid(Spot spot) {
    Thread *const t = me();
    Meeting &m = now.grid;
    if (!now.cooperative)
        end_with(who(t) + " meets the grid at " + at(spot) + ", but the launch is not cooperative");
    arrive(m, t, "the grid's meeting", spot);
    char *const sync = &m.sync[m.epoch & 1];
    happened(sync);
    if ((size_t)m.arrived < now.threads.size()) wait(m, t); /* for those that have returned, too */
    else {
        hold(m);
        go_on(t);
    }
    see(sync);
}

Gathering &gathering(Warp &w, unsigned mask) {
    Gathering *free = nullptr;
    for (int i = 0; i < w.used; i++) {
        Gathering &g = w.gatherings[i];
        if (g.arrived && g.mask == mask) return g;
        if (!g.arrived) free = &g;
    }
    if (!free) { /* never more than lanes that wait */
        free = &w.gatherings[w.used++];
        *free = Gathering();
    }
    free->mask = mask;
    return *free;
}

void hold_lanes(Gathering &g, Thread *lanes) {
    const unsigned group = g.group;
    g.group = 0;
    if (g.finish) g.finish(lanes, group);
    hold(g);
}

/* Lanes meet, and `finish` is done once for all of them. */
Thread *meet_lanes(unsigned mask, const char *what, Spot spot, bool is_fence,
                   void (*finish)(Thread *, unsigned)) {
    Thread *const t = me();
    Gathering &g = gathering(*t->warp, mask);
    if (!(mask >> t->lane & 1))
        end_with(who(t) + " calls " + what + " at " + at(spot) + " with a mask that is without it");
    arrive(g, t, what, spot);
    g.group |= 1u << t->lane;
    g.finish = finish;
    char *const sync = &g.sync[g.epoch & 1];
    if (is_fence) happened(sync);
    if (g.group != (mask & t->warp->alive)) wait(g, t);
    else {
        hold_lanes(g, t - t->lane);
        go_on(t);
    }
    if (is_fence) see(sync);
    return t;
}

void meet_warp(unsigned mask, const char *what, bool is_fence, Spot spot) {
    meet_lanes(mask, what, spot, is_fence, nullptr);
}

void finish_exchange(Thread *lanes, unsigned group) {
    Word taken[32];
    for (unsigned l = 0; l < 32; l++) {
        if (!(group >> l & 1)) continue;
        const Thread &t = lanes[l];
        if (t.from > 31 || !(group >> t.from & 1))
            end_with(who(&t) + " reads in " + t.what + " at " + at(t.spot) + " from lane " +
                     std::to_string(t.from) + ", which takes no part");
        taken[l] = lanes[t.from].value;
    }
    for (unsigned l = 0; l < 32; l++)
        if (group >> l & 1) lanes[l].value = taken[l];
}

/* None of these is a fence: what the others wrote is seen behind __syncwarp only. */
Word exchange(unsigned mask, Word value, unsigned from, const char *what, Spot spot) {
    Thread *const t = me();
    t->value = value;
    t->from = from;
    return meet_lanes(mask, what, spot, false, finish_exchange)->value;
}

void finish_ballot(Thread *lanes, unsigned group) {
    Word votes = 0;
    for (unsigned l = 0; l < 32; l++)
        if (group >> l & 1) votes |= lanes[l].value << l;
    for (unsigned l = 0; l < 32; l++)
        if (group >> l & 1) lanes[l].value = votes;
}

unsigned ballot(unsigned mask, bool vote, const char *what, Spot spot) {
    me()->value = vote;
    return (unsigned)meet_lanes(mask, what, spot, false, finish_ballot)->value;
}

/* Sums in the order of k, by multiply-add. */
void finish_product(Thread *lanes, unsigned group) {
    if (group != 0xffffffffu)
        end_with("a product of matrices at " + at(me()->spot) + " needs the 32 lanes of a warp");
    const int m = lanes[0].product->m, n = lanes[0].product->n, k = lanes[0].product->k;
    float a[32 * 16], b[16 * 32], c[16 * 16];
    const auto spread = [&](int count, float *whole, auto share) {
        for (int l = 0; l < 32; l++)
            for (int i = 0; i < count / 32; i++)
                whole[emulated::element(l, i, count)] = share(*lanes[l].product)[i];
    };
    spread(m * k, a, [](Product &p) { return p.a; });
    spread(k * n, b, [](Product &p) { return p.b; });
    spread(m * n, c, [](Product &p) { return p.sum; });
    for (int i = 0; i < m; i++)
        for (int p = 0; p < k; p++)
            for (int j = 0; j < n; j++)
                c[i * n + j] = __builtin_fmaf(a[i * k + p], b[p * n + j], c[i * n + j]);
    for (int l = 0; l < 32; l++)
        for (int i = 0; i < m * n / 32; i++)
            lanes[l].product->sum[i] = c[emulated::element(l, i, m * n)];
}

void multiply(Product *product, Spot spot) {
    me()->product = product;
    meet_lanes(0xffffffffu, "mma_sync", spot, false, finish_product);
}

/* ---- spins, atomics, fences ---------------------------------------------------------------- */

void spin(Spot spot, bool is_patient) {
    Thread *const t = me();
    t->spot = spot;
    t->state = SPINNING;
    t->is_patient = is_patient;
    now.spinning.push_back(t);
    stop(t);
}

void yield(Spot spot) { spin(spot, false); }
void look(Spot spot) { spin(spot, true); }

void progress() {
    ++now.clock;
    if (!shuffled()) return;
    spinners_run();
    if (random_word() & 3) return;
    Thread *const t = me();
    to_run(t);
    stop(t);
}

/* An atomic behind a fence releases, and a fence behind an atomic acquires: ThreadSanitizer knows
 * atomics, and no fences. */
void fence() {
    Thread *const t = me();
    t->fenced = true;
    for (unsigned i = 0; i < 4 && i < t->seen_count; i++) see(const_cast<void *>(t->seen[i]));
}

bool releases(const void *address) {
    Thread *const t = me();
    t->seen[t->seen_count++ & 3] = address;
    return t->fenced;
}

[[noreturn]] void fail(const char *what, Spot spot) {
    end_with(who(me()) + ": " + what + " at " + at(spot));
}

/* ---- threads and blocks -------------------------------------------------------------------- */

/* A thread that has returned is waited for no longer, except by the grid. */
void returned(Thread *t) {
    Block &b = *t->block;
    Warp &w = *t->warp;
    happened(&now.end);
    t->state = RETURNED;
    --now.alive;
    ++now.clock;
    --b.alive;
    w.alive &= ~(1u << t->lane);
    if (b.alive && b.meeting.arrived == b.alive) hold_block(b.meeting);
    for (int i = 0; i < w.used; i++) {
        Gathering &g = w.gatherings[i];
        if (g.arrived && g.group == (g.mask & w.alive)) hold_lanes(g, t - t->lane);
    }
}

/* What a stack runs: a thread, and on the same stack as many others as have not begun. */
void entry() {
    if (__sanitizer_finish_switch_fiber) {
        const void *bottom;
        size_t bytes;
        __sanitizer_finish_switch_fiber(nullptr, &bottom, &bytes);
        if (!now.bottom) { /* the first one, which comes from who launches */
            now.bottom = bottom;
            now.bytes = bytes;
        }
    }
    for (;;) {
        Thread *const t = me();
        see(&now.begin);
        now.run(now.arguments);
        returned(t);
        Thread *const to = next();
        /* to ThreadSanitizer two threads on one stack would race for it */
        if (__tsan_switch_to_fiber) leave(&t->frame, nullptr, to);
        else if (to && to->state == FRESH) {
            std::swap(to->stack, t->stack);
            to->state = READY;
            table.here = to;
        } else {
            stacks.push_back(t->stack);
            t->stack = {};
            leave(&t->frame, nullptr, to);
        }
    }
}

uint3 coordinates(size_t i, const dim3 &d) {
    return {(unsigned)(i % d.x), (unsigned)(i / d.x % d.y), (unsigned)(i / d.x / d.y)};
}

/* Memory of a block's own, so that a sanitizer sees its bounds; else there is a guard behind it. */
void *shared_memory(size_t bytes) {
    void *p = nullptr;
    if (posix_memalign(&p, 128, bytes + (sanitized() ? !bytes : GUARD))) return nullptr;
    if (!sanitized()) memset((char *)p + bytes, 0xA5, GUARD);
    return p;
}

bool guard_is_whole(const Block &b) {
    if (sanitized()) return true;
    for (size_t i = 0; i < GUARD; i++)
        if (b.shared[now.shared_bytes + i] != 0xA5) return false;
    return true;
}

/* The block that is kept at `slot` begins anew, as block `index` of the grid. */
void begin_block(size_t slot, size_t index) {
    const size_t count = volume(table.block_dim);
    Block &b = now.blocks[slot];
    b.index = coordinates(index, table.grid_dim);
    b.alive = (int)count;
    b.meeting = {};
    b.first = b.last = nullptr;
    memset(b.shared, 0xff, now.shared_bytes); /* NaN, until written */
    for (size_t i = 0; i < count; i++) {
        Thread &t = now.threads[slot * count + i];
        Warp &w = *t.warp;
        if (t.lane == 0) w.alive = w.used = 0;
        w.alive |= 1u << t.lane;
        t.state = FRESH;
        t.fenced = false;
        t.seen_count = t.started = 0;
        to_run(&t);
    }
    now.alive += count;
}

/* Makes what is kept of `kept` blocks; false where there is no memory. */
bool make_blocks(size_t kept) {
    const size_t count = volume(table.block_dim), warps = (count + 31) / 32;
    now.threads.assign(kept * count, {});
    now.blocks.assign(kept, {});
    now.warps.resize(kept * warps);
    now.ring.resize(kept * count);
    now.spinning.clear();
    now.spinning.reserve(kept * count);
    for (size_t s = 0; s < kept; s++) {
        Block &b = now.blocks[s];
        b.shared = (unsigned char *)shared_memory(now.shared_bytes);
        if (!b.shared) return false;
        for (size_t i = 0; i < count; i++) {
            Thread &t = now.threads[s * count + i];
            t.index = coordinates(i, table.block_dim);
            t.lane = i % 32;
            t.team = t.block = &b;
            t.warp = &now.warps[s * warps + i / 32];
            if (__tsan_create_fiber) {
                t.fiber = __tsan_create_fiber(0);
                const std::string name = "of block " + place(coordinates(s, table.grid_dim));
                __tsan_set_fiber_name(t.fiber, (place(t.index) + " " + name).c_str());
            }
        }
    }
    return !sanitized() || make_stacks(kept * count); /* no allocation among sanitized threads */
}

void run_those_ready() {
    happened(&now.begin);
    if (Thread *first = next()) leave(&now.frame, &now.fake, first);
    for (const Block &b : now.blocks)
        if (now.fault.empty() && !guard_is_whole(b))
            now.fault = "block " + place(b.index) + " writes behind its " +
                        std::to_string(now.shared_bytes) + " bytes of shared memory";
}

void run_blocks() {
    const size_t count = volume(table.grid_dim);
    /* ThreadSanitizer must not take a block's memory for that of one before it */
    const size_t kept = now.cooperative || __tsan_create_fiber ? count : 1;
    if (kept * volume(table.block_dim) > MOST_THREADS) {
        now.fault = "more than " + std::to_string(MOST_THREADS) + " threads alive together";
        return;
    }
    if (!make_blocks(kept)) {
        now.fault = "the host has not the memory";
        return;
    }
    now.fiber = __tsan_get_current_fiber ? __tsan_get_current_fiber() : nullptr;
    std::vector<size_t> order(count);
    for (size_t i = 0; i < count; i++) order[i] = i;
    if (runs_ahead())
        std::rotate(order.begin(), order.begin() + favoured(count), order.end());
    if (shuffled())
        for (size_t i = count; i > 1; i--) std::swap(order[i - 1], order[random_word() % i]);
    for (size_t i : order) {
        begin_block(kept == 1 ? 0 : i, i);
        if (!now.cooperative) run_those_ready();
        if (!now.fault.empty()) return;
    }
    if (now.cooperative) run_those_ready();
    see(&now.end);
}

std::mutex one_at_a_time;

}  // namespace

extern "C" Machine *emulated_machine() { return &table; }

/* 0, or 1 with a message. `grid` and `block` have three numbers each. A schedule of 0 is in order,
 * a positive one shuffled by that seed, -1 - i runs block i as far as it can before the others. */
extern "C" int emulated_launch(void (*run)(void **), Word *arguments, size_t count,
                               const unsigned *grid, const unsigned *block, size_t shared,
                               int cooperative, long long schedule, char *message, size_t size) {
    const std::lock_guard<std::mutex> lock(one_at_a_time);
    std::vector<void *> pointers(count);
    for (size_t i = 0; i < count; i++) pointers[i] = &arguments[i];
    table.grid_dim = dim3(grid[0], grid[1], grid[2]);
    table.block_dim = dim3(block[0], block[1], block[2]);
    table.meet_block = meet_block;
    table.meet_grid = meet_grid;
    table.meet_warp = meet_warp;
    table.exchange = exchange;
    table.ballot = ballot;
    table.multiply = multiply;
    table.yield = yield;
    table.look = look;
    table.progress = progress;
    table.fence = fence;
    table.releases = releases;
    table.fail = fail;
    now.run = run;
    now.arguments = pointers.data();
    now.cooperative = cooperative;
    now.schedule = schedule;
    now.random = (Word)schedule;
    now.shared_bytes = shared;
    now.fault.clear();
    now.grid = {};
    now.alive = now.head = now.ready = 0;
    now.clock = now.spun_at = 0;
    now.idle = 0;
    now.bottom = nullptr;
    run_blocks();
    for (Thread &t : now.threads) {
        if (t.stack.top) stacks.push_back(t.stack);
        if (t.fiber) __tsan_destroy_fiber(t.fiber);
    }
    for (Block &b : now.blocks) free(b.shared);
    now.threads.clear();
    now.blocks.clear();
    if (now.fault.empty()) return 0;
    snprintf(message, size, "%s", now.fault.c_str());
    return 1;
}
