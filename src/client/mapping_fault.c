/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Somebody has touched a page of a mapping that is not in place. This runs in a signal handler, but of a fault: at that point the thread holds none of the library's locks, which
 * touches no mappings with them. So it may take locks, ask the daemon and wait as any other call, with all signals blocked. But it may be in a handler of the application's that has come within
 * malloc(): what is made here, or by the listener for the answer, is of memory.h. (Not so where a session begins: with the next daemon, and in a child.)
 */
#include <errno.h>
#include <pthread.h>
#include <sys/mman.h>
#include <time.h>

#include "client/calls.h"
#include "client/map.h"
#include "client/mapping.h"
#include "client/prefault.h"
#include "client/reopen.h"
#include "client/section.h"
#include "client/session.h"

#define BLOCK 4096u
#define PAUSE_NS 5000000
#define BAD_TIMES 4u
#define ASKS_MAX 64u             /* for one unit: it is not to be had */
#define PATIENCE_NS 5000000000ll /* with what passes: a new session, memory */
#define BACK_NS 1000000000ll     /* after a file has been attached again */
#define SPACE_NS 4000000000ll
#define SPACE_PAUSE_NS 50000000

struct touch {
	uintptr_t addr;
	bool store;
	struct mapped *mapped; /* with a user: ours */
	uint64_t off;
	uint64_t lo, hi; /* what was just asked for */
	uint64_t ask_off, ask_len;
	uint64_t around; /* what is asked for is shared: so much of it; else 0 */
	bool alone;      /* there is no space for more than the page */
	bool whole;      /* what is asked for: the unit at off */
	bool may_store;  /* the mapping */
	bool storable;   /* to be asked for as if it were stored to */
	unsigned asks;
	uint64_t end; /* in place up to there */
};

enum look { LOOK_DONE, LOOK_ASK, LOOK_END, LOOK_LOST, LOOK_WAIT, LOOK_FAILED };

static uint64_t off_end(const struct mapping *m)
{
	return m->off + (m->hi - m->lo);
}

/* Under client_lock. */
static void ask_for(const struct mapping *m, struct touch *t)
{
	struct holding *h = m->mapped->file->holding;
	const struct view *v = atomic_load_explicit(&h->view, memory_order_relaxed);
	const struct umbra_piece *p = v ? pieces_find(v->pieces, t->off) : NULL;

	t->ask_off = t->off;
	t->ask_len = t->store ? 1 : off_end(m) - t->off;
	t->around = 0;
	t->alone |= h->session && h->session->full;
	t->may_store = m->shared && (m->prot & PROT_WRITE);
	t->whole = m->unit > BLOCK && (p || t->store);
	if (!t->whole && t->store && p && (p->flags & UMBRA_PIECE_SHARED) && !(p->flags & UMBRA_PIECE_WRITE))
		t->around = t->alone ? BLOCK : window_next(&h->window_past, t->off);
}

/* LOOK_ASK, LOOK_END, LOOK_LOST: its file has a user more. */
static enum look look(struct touch *t)
{
	enum look rc = LOOK_DONE;
	struct mapping *m;

	pthread_mutex_lock(&client_lock);
	m = mapping_find(t->addr);
	if (m && !m->by_kernel && m->mapped->file->holding->leaving) {
		rc = LOOK_WAIT;
	} else if (m && !m->by_kernel) {
		/* Of the page: it may begin before the end of the file and go on after it. */
		t->off = m->off + u64_align_down(t->addr - m->lo, BLOCK);
		switch (mapping_place(m, t->off, t->store, t->lo, t->hi, &t->end)) {
		case PLACE_END:
			rc = LOOK_END;
			break;
		case PLACE_LOST:
			rc = LOOK_LOST;
			break;
		case PLACE_FAILED:
			rc = LOOK_FAILED;
			break;
		case PLACE_KERNEL:
			t->asks = ASKS_MAX;
			rc = LOOK_ASK;
			break;
		case PLACE_ASK:
			ask_for(m, t);
			rc = LOOK_ASK;
			break;
		case PLACE_DONE:
			if (t->around && t->hi > t->lo)
				prefault_set(m->lo + (u64_max(t->lo, m->off) - m->off),
					     m->lo + (u64_min(t->hi, off_end(m)) - m->off));
			break;
		}
		t->mapped = m->mapped;
		if (rc != LOOK_DONE && rc != LOOK_FAILED)
			t->mapped->users++;
	}
	pthread_mutex_unlock(&client_lock);
	return rc;
}

/* The access comes again, and dies then as one past the end of a file does. */
static enum fault bus(const struct touch *t, bool came_as_bus)
{
	struct mapping *m;

	pthread_mutex_lock(&client_lock);
	m = mapping_find(t->addr);
	if (m && !m->by_kernel && !came_as_bus)
		mapping_place_bus(m, m->off + (t->addr - m->lo));
	pthread_mutex_unlock(&client_lock);
	return FAULT_BUS;
}

static void pause_for(long ns)
{
	struct timespec pause = { .tv_nsec = ns };

	nanosleep(&pause, NULL);
}

static void pause_short(void)
{
	pause_for(PAUSE_NS);
}

/* How long one waits for others who have the file open through the kernel. After a daemon has been followed by the next one they are those who have not attached it again yet. */
static bool busy_passes(const struct touch *t, int64_t since_ns)
{
	int64_t now_ns = client_now_ns(), back_ns = atomic_load(&t->mapped->file->holding->back_ns);

	return now_ns - since_ns < (t->store ? client_calls.busy_ns : BUSY_LOAD_NS) ||
	       (back_ns && now_ns - back_ns < BACK_NS && now_ns - since_ns < PATIENCE_NS);
}

/* What a store that needs space has come to. */
static void space_note(const struct touch *t, bool full)
{
	struct holding *h = t->mapped->file->holding;

	pthread_mutex_lock(&client_lock);
	if (h->session)
		h->session->full = full;
	pthread_mutex_unlock(&client_lock);
}

/* What was copied around other stores is given back once a second when space is short. Where that was waited for in vain nobody does so again until somebody has got some. */
static bool space_may_come(const struct touch *t, int64_t since_ns)
{
	const struct holding *h = t->mapped->file->holding;
	bool full;

	pthread_mutex_lock(&client_lock);
	full = h->session && h->session->full;
	pthread_mutex_unlock(&client_lock);
	if (full)
		return false;
	if (client_now_ns() - since_ns < SPACE_NS)
		return true;
	space_note(t, true);
	return false;
}

/* After an answer that is an error: whether it is to be tried again. */
static enum fault failed(struct touch *t, int rc, int64_t *since_ns, bool came_as_bus)
{
	int away = file_away(t->mapped->file, rc);

	/* As long as nobody was there to be asked nothing has been asked in vain. */
	if (atomic_load(&client_answered_ns) > *since_ns)
		*since_ns = atomic_load(&client_answered_ns);
	if (away < 0)
		return bus(t, came_as_bus);
	if (away == 0) {
		*since_ns = client_now_ns();
		return FAULT_DONE;
	}
	switch (rc) {
	case -ENOSPC:
	case -EDQUOT:
		if (t->around && !t->alone) {
			t->alone = true;
			return FAULT_DONE;
		}
		if (t->around && space_may_come(t, *since_ns)) {
			pause_for(SPACE_PAUSE_NS);
			return FAULT_DONE;
		}
		return bus(t, came_as_bus);
	case -EIO:
		return bus(t, came_as_bus);
	case -EAGAIN:
		/* It has been asked for a moment ago: the answer may have been any. */
	case -ENOTCONN:
	case -ENOMEM:
		if (client_now_ns() - *since_ns < PATIENCE_NS) {
			pause_short();
			return FAULT_DONE;
		}
		break;
	case -EBUSY:
		if (busy_passes(t, *since_ns)) {
			pause_short();
			return FAULT_DONE;
		}
		break;
	default:
		break;
	}
	return mappings_leave(t->mapped->file->holding) == 0 ? FAULT_DONE : bus(t, came_as_bus);
}

/*
 * Asks for the unit at off. Whoever only reads is not given what has to be copied or filled for it; but it is if the mapping may be stored to: then that comes sooner or later.
 */
static int ask_whole(struct touch *t)
{
	bool store = t->store || t->storable;
	int rc = t->asks >= ASKS_MAX ? -EOPNOTSUPP : map_ask_whole(t->mapped->file, t->off, store);

	t->asks += rc == 0;
	t->lo = t->hi = 0;
	if ((rc == -EOPNOTSUPP || rc == -EINVAL) && !store && t->may_store && t->asks < ASKS_MAX) {
		t->storable = true;
		rc = 0;
	}
	/* There may be blocks, but no 2 MiB in one piece: the kernel can do with those. */
	return rc == -ENOSPC ? -EOPNOTSUPP : rc;
}

static enum fault resolve(struct touch *t, bool came_as_bus)
{
	int64_t since_ns = client_now_ns();
	bool end_asked = false, lost_asked = false;
	enum fault f = FAULT_DONE;
	int rc;

	while (f == FAULT_DONE) {
		enum look l = look(t);

		if (l == LOOK_DONE)
			return FAULT_DONE;
		if (l == LOOK_FAILED)
			return bus(t, came_as_bus);
		if (l == LOOK_WAIT) {
			pause_short();
			continue;
		}
		if ((l == LOOK_LOST && lost_asked) || (l == LOOK_END && end_asked)) {
			f = bus(t, came_as_bus);
		} else if (l == LOOK_LOST) {
			/* Nor when what was lost has been put back. */
			lost_asked = true;
			map_lost_again(t->mapped->file, t->off, 1);
		} else if (l == LOOK_END) {
			/* Nobody is told when a file becomes longer. */
			end_asked = true;
			holding_size_open(t->mapped->file->holding);
		} else {
			if (t->whole || t->asks >= ASKS_MAX)
				rc = ask_whole(t);
			else if (t->around)
				rc = map_ask_shared(t->mapped->file, t->off, t->around, &t->lo, &t->hi);
			else
				rc = map_ask_range(t->mapped->file, t->ask_off, t->ask_len, t->store, &t->lo,
						   &t->hi);
			if (rc == 0 && t->store && t->around)
				space_note(t, false);
			f = rc ? failed(t, rc, &since_ns, came_as_bus) : FAULT_DONE;
		}
		mapped_put(t->mapped);
	}
	return f;
}

/* Of the device, and not known to be lost: with a user of its file. Under client_lock. */
static struct mapped *piece_at(struct mapping *m, uint64_t off)
{
	const struct view *v = atomic_load_explicit(&m->mapped->file->holding->view, memory_order_relaxed);
	const struct umbra_piece *p = v ? pieces_find(v->pieces, off) : NULL;

	if (!p || (p->flags & (UMBRA_PIECE_HOLE | UMBRA_PIECE_LOST)))
		return NULL;
	m->mapped->users++;
	return m->mapped;
}

/* Whether this thread has come for that page again and again, within some time. */
static bool comes_again(uintptr_t addr)
{
	static __thread struct {
		uintptr_t page;
		int64_t since_ns;
		unsigned times;
	} last __attribute__((tls_model("initial-exec")));
	int64_t now_ns = client_now_ns();

	if (last.page != addr / BLOCK || now_ns - last.since_ns > PATIENCE_NS) {
		last.page = addr / BLOCK;
		last.since_ns = now_ns;
		last.times = 0;
	}
	return ++last.times > BAD_TIMES;
}

/* What is lost is found by the next touch. What the daemon reads well time after time, and we do not, it can read for us. */
static void bad_memory(struct touch *t)
{
	struct mapping *m;
	uint64_t off = 0, end = 0;
	int rc = 0;

	t->mapped = NULL;
	pthread_mutex_lock(&client_lock);
	m = mapping_find(t->addr);
	if (m && !m->by_kernel) {
		t->off = m->off + (t->addr - m->lo);
		t->mapped = piece_at(m, t->off);
		off = u64_align_down(t->off, m->unit);
		end = off + m->unit;
	}
	pthread_mutex_unlock(&client_lock);
	if (!t->mapped)
		return;
	/* Of a large page the kernel does not say which block of it is bad. */
	for (; off < end && rc == 0; off += BLOCK)
		rc = map_bad(t->mapped->file, off);
	if (rc == 0 && comes_again(t->addr))
		(void)!mappings_leave(t->mapped->file->holding);
	mapped_put(t->mapped);
}

bool mapping_is(uintptr_t addr)
{
	const struct mapping *m;
	bool is;

	/* Perhaps this very thread has it. */
	if (pthread_mutex_trylock(&client_lock))
		return true;
	m = mapping_find(addr);
	is = m && !m->by_kernel;
	pthread_mutex_unlock(&client_lock);
	return is;
}

/* In a handler within a section: what is known comes into place. To ask is to wait for somebody who may be waiting for the section. */
static enum fault without_asking(struct touch *t)
{
	enum look l = look(t);

	if (l == LOOK_ASK || l == LOOK_END || l == LOOK_LOST) {
		pthread_mutex_lock(&client_lock);
		t->mapped->users--; /* if it was the last, the file stays: its end is asked for too */
		pthread_mutex_unlock(&client_lock);
	}
	return l == LOOK_DONE ? FAULT_DONE : FAULT_NOT_OURS;
}

enum fault mapping_fault(uintptr_t addr, bool store, bool came_as_bus, bool bad)
{
	struct touch t = { .addr = addr, .store = store };
	int prot = PROT_NONE, cancel, error = errno;
	struct mapping *m;
	enum fault f;
	bool ours;

	if (!mappings_touch(addr, addr + 1) || !mappings_alive())
		return FAULT_NOT_OURS;
	if (came_as_bus && !section_is_interrupted())
		(void)mappings_take_back_dead();
	pthread_mutex_lock(&client_lock);
	m = mapping_find(addr);
	ours = m && !m->by_kernel;
	if (ours)
		prot = m->prot;
	pthread_mutex_unlock(&client_lock);
	if (!ours || prot == PROT_NONE || (store && !(prot & PROT_WRITE)))
		return FAULT_NOT_OURS;
	if (section_is_interrupted())
		return bad ? FAULT_NOT_OURS : without_asking(&t);
	pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &cancel);
	if (bad)
		bad_memory(&t);
	f = resolve(&t, came_as_bus);
	pthread_setcancelstate(cancel, NULL);
	errno = error;
	return f;
}

/* One step of it, from *lo on. */
static int prefault_part(uintptr_t *lo, uintptr_t hi, bool store)
{
	struct touch t = { .addr = *lo, .store = store };
	struct mapping *m;
	int rc = 0;

	pthread_mutex_lock(&client_lock);
	m = mapping_find(*lo);
	if (m && m->by_kernel) {
		rc = -EAGAIN;
	} else if (m) {
		hi = hi < m->hi ? hi : m->hi;
		t.lo = m->off + (*lo - m->lo);
		t.hi = m->off + (hi - m->lo);
		if (m->prot == PROT_NONE)
			rc = -EFAULT;
		else if (store && !(m->prot & PROT_WRITE))
			rc = -EINVAL;
	}
	pthread_mutex_unlock(&client_lock);
	if (!m)
		return -ENOMEM;
	if (rc == -EAGAIN)
		return rc;
	/* As one that came as SIGBUS: no page that gives one is put there. */
	if (rc == 0 && resolve(&t, true) != FAULT_DONE)
		rc = -EFAULT;
	if (rc == 0)
		*lo = t.end > t.off ? u64_min(hi, *lo + (t.end - t.off)) : *lo;
	return rc;
}

int mapping_prefault(uintptr_t lo, uintptr_t hi, bool store)
{
	int rc = 0;

	if (!mappings_alive())
		return -ENOMEM;
	while (rc == 0 && lo < hi)
		rc = prefault_part(&lo, hi, store);
	return rc;
}
