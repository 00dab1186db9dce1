/* SPDX-License-Identifier: BSD-3-Clause */
#include "client/mapping.h"

#include <errno.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "client/calls.h"
#include "client/memory.h"
#include "client/reopen.h"
#include "client/session.h"
#include "client/spare_areas.h"
#include "util/sabotage.h"

#define BLOCK 4096u
#define HUGE_BYTES (2u << 20)
#define WINDOW_MAX (1ull << 30)
#define PIECES_AT_ONCE 64u
#define AREAS_MAX 16384u /* of the kernel's, for all mappings together */

struct entry {
	_Atomic uintptr_t lo, hi;
	struct mapping *m;
};

/* In the order of their addresses. One that has become too small stays: somebody may be reading it. */
struct set {
	size_t places;
	struct entry entries[];
};

static _Atomic(struct set *) set_now;
static _Atomic size_t all_count;
static _Atomic unsigned set_turn; /* odd: it is being changed */
static uint64_t areas;            /* of all */
static struct mapped *mapped_all;
static struct mapping *left; /* of a child: to be freed in some quiet moment */

/* ---- the set ---- */

static struct set *set_of(void)
{
	return atomic_load_explicit(&set_now, memory_order_relaxed);
}

/* How many of the first count end at addr or before it. */
static size_t count_before(struct set *set, size_t count, uintptr_t addr)
{
	size_t lo = 0, hi = count;

	while (lo < hi) {
		size_t mid = lo + (hi - lo) / 2;

		if (atomic_load_explicit(&set->entries[mid].hi, memory_order_relaxed) <= addr)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo;
}

struct mapping *mapping_next(uintptr_t addr)
{
	size_t count = all_count, i = count_before(set_of(), count, addr);

	return i < count ? set_of()->entries[i].m : NULL;
}

struct mapping *mapping_find(uintptr_t addr)
{
	struct mapping *m = mapping_next(addr);

	return m && m->lo <= addr ? m : NULL;
}

static unsigned changing; /* changes of which one is a part of another one */
/* By this thread. A handler that has come within must not wait for the end. */
static __thread bool changing_mine __attribute__((tls_model("initial-exec")));

bool mappings_touch(uintptr_t lo, uintptr_t hi)
{
	while (!changing_mine) {
		unsigned turn = atomic_load_explicit(&set_turn, memory_order_acquire);
		size_t count = atomic_load_explicit(&all_count, memory_order_relaxed), i;
		struct set *set = atomic_load_explicit(&set_now, memory_order_acquire);
		bool touch = false;

		if (set && count > 0) {
			count = u64_min(count, set->places);
			i = count_before(set, count, lo);
			touch = i < count &&
				atomic_load_explicit(&set->entries[i].lo, memory_order_relaxed) < hi;
		}
		atomic_thread_fence(memory_order_acquire);
		if (!(turn & 1) && atomic_load_explicit(&set_turn, memory_order_relaxed) == turn)
			return touch;
		sched_yield();
	}
	return false;
}

bool mappings_are_none(void)
{
	unsigned turn = atomic_load_explicit(&set_turn, memory_order_acquire);
	bool none = atomic_load_explicit(&all_count, memory_order_relaxed) == 0;

	atomic_thread_fence(memory_order_acquire);
	return none && !(turn & 1) && atomic_load_explicit(&set_turn, memory_order_relaxed) == turn;
}

int mappings_reserve(unsigned more)
{
	struct set *set = set_of(), *bigger;
	size_t places = set ? set->places : 16;

	while (places < all_count + more)
		places *= 2;
	if (set && places == set->places)
		return 0;
	bigger = memory_get(sizeof(*bigger) + places * sizeof(bigger->entries[0]));
	if (!bigger)
		return -ENOMEM;
	bigger->places = places;
	if (all_count > 0)
		memcpy(bigger->entries, set->entries, all_count * sizeof(set->entries[0]));
	atomic_store_explicit(&set_now, bigger, memory_order_release);
	return 0;
}

void mappings_change_begin(void)
{
	if (changing++ > 0)
		return;
	changing_mine = true;
	atomic_signal_fence(memory_order_seq_cst);
	atomic_fetch_add_explicit(&set_turn, 1, memory_order_relaxed);
	atomic_thread_fence(memory_order_seq_cst);
}

void mappings_change_end(void)
{
	if (--changing > 0)
		return;
	atomic_fetch_add_explicit(&set_turn, 1, memory_order_release);
	atomic_signal_fence(memory_order_seq_cst);
	changing_mine = false;
}

void mapping_add(struct mapping *m)
{
	struct holding *h = m->mapped->file->holding;
	size_t i = count_before(set_of(), all_count, m->lo);
	struct entry *at = &set_of()->entries[i];

	mappings_change_begin();
	memmove(at + 1, at, (all_count - i) * sizeof(*at));
	*at = (struct entry){ m->lo, m->hi, m };
	all_count++;
	mappings_change_end();
	m->next = h->mappings;
	h->mappings = m;
	areas += m->areas;
}

void mapping_remove(struct mapping *m)
{
	struct mapping **link = &m->mapped->file->holding->mappings;
	size_t i = count_before(set_of(), all_count, m->lo);
	struct entry *at = &set_of()->entries[i];

	while (*link != m)
		link = &(*link)->next;
	*link = m->next;
	mappings_change_begin();
	all_count--;
	memmove(at, at + 1, (all_count - i) * sizeof(*at));
	mappings_change_end();
	areas -= m->areas;
}

static struct mapping *part_of(const struct mapping *m, struct mapping *spare, uintptr_t lo, uintptr_t hi)
{
	*spare = *m;
	spare->lo = lo;
	spare->hi = hi;
	spare->off = m->off + (lo - m->lo);
	spare->mapped->users++;
	return spare;
}

void mappings_cut(uintptr_t lo, uintptr_t hi, struct mapping *spares[2], struct mapping **out)
{
	struct mapping *m;

	*out = NULL;
	mappings_change_begin();
	while ((m = mapping_next(lo)) && m->lo < hi) {
		mapping_remove(m);
		if (m->lo < lo) {
			mapping_add(part_of(m, spares[0], m->lo, lo));
			spares[0] = NULL;
			m->off += lo - m->lo;
			m->lo = lo;
		}
		if (m->hi > hi) {
			mapping_add(part_of(m, spares[1], hi, m->hi));
			spares[1] = NULL;
			m->hi = hi;
		}
		m->next = *out;
		*out = m;
	}
	mappings_change_end();
}

/* One that goes on where m ends, and is alike in all that counts. */
static bool goes_on(const struct mapping *m, const struct mapping *next)
{
	return next && next->lo == m->hi && next->off == m->off + (m->hi - m->lo) && next->unit == m->unit &&
	       next->prot == m->prot && next->shared == m->shared && next->by_kernel == m->by_kernel &&
	       next->dont_fork == m->dont_fork && next->mapped == m->mapped && m->hi % m->unit == 0;
}

static void range_join(uint64_t *lo, uint64_t *hi, uint64_t more_lo, uint64_t more_hi)
{
	if (more_lo >= more_hi)
		return;
	*lo = *lo < *hi ? u64_min(*lo, more_lo) : more_lo;
	*hi = u64_max(*hi, more_hi);
}

void mapping_join(struct mapping *m, uintptr_t hi)
{
	struct mapping *next;

	while (m->hi < hi && (next = mapping_next(m->hi)) && goes_on(m, next)) {
		mappings_change_begin();
		mapping_remove(next);
		range_join(&m->placed_lo, &m->placed_hi, next->placed_lo, next->placed_hi);
		range_join(&m->stored_lo, &m->stored_hi, next->stored_lo, next->stored_hi);
		m->storable |= next->storable;
		m->marks |= next->marks;
		mapping_remove(m);
		m->areas += next->areas;
		m->hi = next->hi;
		mapping_add(m);
		mappings_change_end();
		m->mapped->users--; /* it has one itself */
		memory_put(next);
	}
}

/* ---- what is in place ---- */

static uint64_t off_end(const struct mapping *m)
{
	return m->off + (m->hi - m->lo);
}

/* What may be in place of it: whole units. */
static uint64_t place_lo(const struct mapping *m)
{
	return u64_align_down(m->off, m->unit);
}

static uint64_t place_hi(const struct mapping *m)
{
	return u64_align_up(off_end(m), m->unit);
}

static void *address(const struct mapping *m, uint64_t off)
{
	return (void *)(m->lo + (off - m->off));
}

static void areas_add(struct mapping *m, unsigned n)
{
	m->areas += n;
	areas += n;
}

static void areas_forget(struct mapping *m)
{
	m->placed_lo = m->placed_hi = 0;
	m->storable = false;
	areas -= m->areas - 1;
	m->areas = 1;
}

static bool cover(const struct mapping *m, uint64_t lo, uint64_t hi)
{
	return client_calls.mmap(address(m, lo), hi - lo, PROT_NONE,
				 MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1,
				 0) != MAP_FAILED;
}

/*
 * All of it, which needs no more areas than there are, and gives back some where it is in pieces. If that fails, other files' bytes could be seen or changed, which is worse than
 * the end.
 */
static void off_limits(struct mapping *m)
{
	uint64_t lo = place_lo(m), hi = place_hi(m);

	if (!cover(m, lo, hi) && !(spare_areas_give() && cover(m, lo, hi)))
		abort();
	areas_forget(m);
}

static void void_range(struct mapping *m, uint64_t lo, uint64_t hi)
{
	uint64_t first = u64_max(place_lo(m), m->placed_lo), end = u64_min(place_hi(m), m->placed_hi);

	/* A part of a mapping has the count of the whole, wherever that was. */
	if (m->by_kernel || first >= end) {
		areas_forget(m);
		return;
	}
	lo = u64_max(u64_align_down(lo, m->unit), first);
	hi = u64_min(hi > UINT64_MAX - m->unit ? hi : u64_align_up(hi, m->unit), end);
	if (lo >= hi)
		return;
	/* A part, as long as the program has not used up what the kernel allows it. */
	if (!cover(m, lo, hi))
		off_limits(m);
	else if (lo == first && hi == end)
		areas_forget(m);
	else
		areas_add(m, 1);
}

void mapping_void(struct mapping *m)
{
	void_range(m, 0, UINT64_MAX);
}

void mappings_void(struct holding *h, uint64_t lo, uint64_t hi)
{
	for (struct mapping *m = h->mappings; m; m = m->next) {
		if (!sabotage_point("mapping-void"))
			void_range(m, lo, hi);
		/* Stores until just now: whoever hears that we have let go knows of them. */
		mapping_stored_note(m);
	}
}

/* The kernel allows so many areas in a process; a good part of that is for others. */
static uint64_t areas_max = AREAS_MAX;

static void areas_max_look(void)
{
	FILE *file = fopen("/proc/sys/vm/max_map_count", "re");
	unsigned long allowed = 0;

	if (!file)
		return;
	if (fscanf(file, "%lu", &allowed) == 1 && allowed / 4 > 0 && allowed / 4 < AREAS_MAX)
		areas_max = allowed / 4;
	fclose(file);
}

/* Some of what is in place goes: it comes again when it is touched. */
static void areas_make(void)
{
	static size_t turn;

	if (areas <= areas_max)
		return;
	for (size_t i = 0; i < all_count && areas > areas_max / 2; i++)
		void_range(set_of()->entries[turn++ % all_count].m, 0, UINT64_MAX);
}

/*
 * wanted: to be stored to. To be read only, what could be is not made so: who stores later comes again, and the file is marked then. But for whole units: past the end of the file
 * nobody comes again. False: nothing of the mapping is in place any more.
 */
static bool place_piece(struct mapping *m, const struct view *v, const struct umbra_piece *p, bool wanted,
			uint64_t lo, uint64_t hi)
{
	bool store = m->shared && (m->prot & PROT_WRITE) && (p->flags & UMBRA_PIECE_WRITE) &&
		     (wanted || m->marks || m->unit > BLOCK);
	uint8_t *from = (store ? v->base : v->read_base) + p->dev_off + (lo - p->file_off);
	void *to = address(m, lo);

	if (p->flags & UMBRA_PIECE_HOLE)
		to = client_calls.mmap(to, hi - lo, PROT_READ,
				       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0);
	else
		to = client_calls.mremap(from, 0, hi - lo, MREMAP_MAYMOVE | MREMAP_FIXED, to);
	if (to == MAP_FAILED) {
		off_limits(m);
		return false;
	}
	if (store) {
		bool none = m->stored_lo >= m->stored_hi;

		m->stored_lo = none ? lo : u64_min(m->stored_lo, lo);
		m->stored_hi = none ? hi : u64_max(m->stored_hi, hi);
		m->storable = m->marks = true;
		atomic_store_explicit((_Atomic __u64 *)&v->slot->stored, 1, memory_order_release);
	}
	return true;
}

static void placed(struct mapping *m, uint64_t lo, uint64_t hi, unsigned pieces)
{
	bool none = m->placed_lo >= m->placed_hi;

	m->placed_lo = none ? lo : u64_min(m->placed_lo, lo);
	m->placed_hi = none ? hi : u64_max(m->placed_hi, hi);
	areas_add(m, pieces + 1);
}

/* Larger while one goes on where the last one ended. */
static void window(struct mapping *m, uint64_t off, uint64_t *lo, uint64_t *hi)
{
	*lo = u64_max(u64_align_down(off, HUGE_BYTES), place_lo(m));
	m->window_bytes = *lo == m->window_end ? u64_min(2 * m->window_bytes, WINDOW_MAX) : 0;
	m->window_bytes = u64_max(m->window_bytes, HUGE_BYTES);
	*hi = u64_align_down(off, HUGE_BYTES) + m->window_bytes;
	m->window_end = *hi;
}

/* *p becomes the first of those from lo on that go on up to it without a gap: nothing is in place there yet. */
static void first_piece(const struct mapping *m, const struct view *v, uint64_t lo, struct umbra_piece *p)
{
	struct umbra_piece before;

	for (unsigned i = 0; i < PIECES_AT_ONCE / 2 && p->file_off > u64_max(lo, m->off); i++) {
		if (piece_to_place(m, v, p->file_off - 1, false, &before) != PLACE_DONE ||
		    before.file_off + before.len != p->file_off)
			return;
		*p = before;
	}
}

/* alone: no more than the piece at off. */
static enum place place_around(struct mapping *m, uint64_t off, bool store, uint64_t lo, uint64_t hi,
			       bool alone, uint64_t *end)
{
	const struct view *v = atomic_load_explicit(&m->mapped->file->holding->view, memory_order_relaxed);
	unsigned count = 0, count_max = alone ? 1 : PIECES_AT_ONCE;
	enum place found;
	struct umbra_piece p;
	uint64_t first;

	if (!v)
		return PLACE_ASK;
	if (off >= u64_align_up(v->size_bytes, BLOCK))
		return v->size_open ? PLACE_ASK : PLACE_END;
	/* Another mount than the one that it was made for may need larger ones. */
	if (m->unit % u64_max(m->mapped->file->holding->session->align_bytes, 1))
		return PLACE_KERNEL;
	found = piece_to_place(m, v, off, store, &p);
	if (found != PLACE_DONE)
		return found;
	if (off < lo || off >= hi)
		window(m, off, &lo, &hi);
	else if (!alone)
		first_piece(m, v, lo, &p);
	areas_make();
	hi = u64_min(u64_align_up(hi, m->unit), u64_min(place_hi(m), u64_align_up(v->size_bytes, m->unit)));
	first = lo = u64_max(u64_max(u64_align_down(lo, m->unit), place_lo(m)), p.file_off);
	*end = lo;
	while (found == PLACE_DONE && p.file_off <= lo && lo < hi && count < count_max) {
		uint64_t to = u64_min(hi, p.file_off + p.len);

		if (!place_piece(m, v, &p, store, lo, to))
			return PLACE_FAILED;
		if (*end == lo && (!store || (p.flags & UMBRA_PIECE_WRITE)))
			*end = to;
		lo = to;
		count++;
		found = piece_to_place(m, v, lo, false, &p);
	}
	if (lo > first)
		placed(m, first, lo, count);
	return lo > off ? PLACE_DONE : PLACE_FAILED;
}

enum place mapping_place(struct mapping *m, uint64_t off, bool store, uint64_t lo, uint64_t hi, uint64_t *end)
{
	enum place found = place_around(m, off, store, lo, hi, false, end);

	/* Perhaps the kernel allows no more areas: this one piece then, and of all of the mapping no other. */
	if (found == PLACE_FAILED)
		found = place_around(m, off, store, lo, hi, true, end);
	if (found == PLACE_FAILED && spare_areas_give())
		found = place_around(m, off, store, lo, hi, true, end);
	return found;
}

static bool is_file_there(const struct mapping *m, uint64_t off, int fd)
{
	return client_calls.mmap(address(m, off), BLOCK, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, fd,
				 0) != MAP_FAILED;
}

void mapping_place_bus(struct mapping *m, uint64_t off)
{
	int fd = memfd_create("umbra", MFD_CLOEXEC);

	off = u64_align_down(off, BLOCK);
	if (fd < 0)
		abort();
	/* Past the end of a file that is empty. */
	if (!is_file_there(m, off, fd)) {
		off_limits(m);
		if (!is_file_there(m, off, fd) && !(spare_areas_give() && is_file_there(m, off, fd)))
			abort();
	}
	close(fd);
	placed(m, off, off + BLOCK, 1);
}

/* ---- addresses ---- */

int mapping_range(const void *addr, size_t len, uintptr_t *lo, uintptr_t *hi)
{
	*lo = (uintptr_t)addr;
	if (*lo % BLOCK || len > (size_t)INT64_MAX - BLOCK ||
	    __builtin_add_overflow(*lo, u64_align_up(len, BLOCK), hi))
		return -EINVAL;
	return 0;
}

int mapping_spares_make(struct mapping *spares[2])
{
	spares[0] = memory_get_clear(sizeof(*spares[0]));
	spares[1] = memory_get_clear(sizeof(*spares[1]));
	if (spares[0] && spares[1])
		return 0;
	mapping_spares_free(spares);
	return -ENOMEM;
}

void mapping_spares_free(struct mapping *spares[2])
{
	memory_put(spares[0]);
	memory_put(spares[1]);
}

void mapping_stored_note(struct mapping *m)
{
	const struct view *v = atomic_load_explicit(&m->mapped->file->holding->view, memory_order_relaxed);

	if (!v || !v->slot || !m->marks)
		return;
	atomic_store_explicit((_Atomic __u64 *)&v->slot->stored, 1, memory_order_release);
	/* What may still be stored to may be at any time. */
	m->marks = m->storable;
}

void mappings_cut_end(struct mapping *cut, uintptr_t lo, uintptr_t hi)
{
	for (; cut; cut = cut->next) {
		mapping_stored_note(cut);
		whole_unreserve(cut, lo, hi);
	}
}

void mapping_part_get(uintptr_t lo, uintptr_t hi, void (*look)(struct mapping_part *part, struct mapping *m),
		      struct mapping_part *part)
{
	struct mapping *m;

	*part = (struct mapping_part){ .lo = lo, .hi = hi };
	pthread_mutex_lock(&client_lock);
	m = mapping_next(lo);
	if (m && m->lo <= lo) {
		part->hi = hi < m->hi ? hi : m->hi;
		part->mapped = m->by_kernel ? NULL : m->mapped;
		if (part->mapped)
			m->mapped->users++;
		if (part->mapped && look)
			look(part, m);
	} else if (m && m->lo < hi) {
		part->hi = m->lo;
	}
	pthread_mutex_unlock(&client_lock);
}

void mapping_part_put(struct mapping_part *part)
{
	if (part->mapped)
		mapped_put(part->mapped);
}

int addresses_reserve(uintptr_t hint, size_t len, uint64_t off, int fixed, uintptr_t *out)
{
	int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
	size_t more = fixed || hint || len < HUGE_BYTES ? 0 : HUGE_BYTES;
	uint8_t *at = client_calls.mmap((void *)hint, len + more, PROT_NONE, flags | fixed, -1, 0), *good;

	if (at == MAP_FAILED)
		return -errno;
	if (hint && !fixed && (uintptr_t)at != hint && len >= HUGE_BYTES) {
		client_calls.munmap(at, len);
		return addresses_reserve(0, len, off, 0, out);
	}
	/* Congruent to the offset: where the device's pieces are so too, large pages can be used. */
	good = more ? at + (off - (uintptr_t)at) % HUGE_BYTES : at;
	if (good > at)
		client_calls.munmap(at, (size_t)(good - at));
	if (good + len < at + len + more)
		client_calls.munmap(good + len, (size_t)(at + len + more - (good + len)));
	*out = (uintptr_t)good;
	return 0;
}

/* ---- files ---- */

static struct mapped *mapped_find(const struct umbra_file *file)
{
	struct mapped *mapped = mapped_all;

	while (mapped &&
	       (mapped->file->holding != file->holding || mapped->file->can_write != file->can_write))
		mapped = mapped->next;
	if (mapped)
		mapped->users++;
	return mapped;
}

int mapped_get(struct umbra_file *file, struct mapped **out)
{
	struct mapped *new;
	int fd, rc;

	pthread_mutex_lock(&client_lock);
	*out = mapped_find(file);
	pthread_mutex_unlock(&client_lock);
	if (*out)
		return 0;
	new = memory_get_clear(sizeof(*new));
	fd = new ? client_calls.fd_dup(file_fd(file)) : -1;
	if (fd < 0) {
		rc = new ? -errno : -ENOMEM;
		memory_put(new);
		return rc;
	}
	rc = umbra_attach(fd, &new->file);
	if (rc) {
		client_calls.fd_close(fd);
		memory_put(new);
		return rc;
	}
	new->users = 1;
	pthread_mutex_lock(&client_lock);
	new->next = mapped_all;
	mapped_all = new;
	pthread_mutex_unlock(&client_lock);
	*out = new;
	return 0;
}

/* Of a descriptor of the library's own. */
static void file_end(struct umbra_file *file)
{
	file_detach_begin(file);
	client_calls.fd_close(file->fd);
	file_detach_end(file);
}

int mapped_adopt(struct umbra_file *file, struct mapped **out)
{
	struct mapped *new = memory_get_clear(sizeof(*new));

	pthread_mutex_lock(&client_lock);
	*out = mapped_find(file);
	if (!*out && new) {
		*new = (struct mapped){ .file = file, .users = 1, .next = mapped_all };
		mapped_all = *out = new;
		new = NULL;
		file = NULL;
	}
	pthread_mutex_unlock(&client_lock);
	memory_put(new);
	if (file)
		file_end(file);
	return *out ? 0 : -ENOMEM;
}

void mapped_put(struct mapped *mapped)
{
	struct mapped **at = &mapped_all;
	bool last;

	pthread_mutex_lock(&client_lock);
	last = --mapped->users == 0;
	if (last) {
		while (*at != mapped)
			at = &(*at)->next;
		*at = mapped->next;
	}
	pthread_mutex_unlock(&client_lock);
	if (!last)
		return;
	file_end(mapped->file);
	memory_put(mapped);
}

void mappings_put(struct mapping *list)
{
	while (list) {
		struct mapping *next = list->next;

		mapped_put(list->mapped);
		memory_put(list);
		list = next;
	}
}

/* ---- children ---- */

static _Atomic bool *alive; /* wiped in a child that has not been told */

int mappings_init(void)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;
	void *at;
	int rc = 0;

	pthread_once(&once, areas_max_look);
	pthread_mutex_lock(&client_lock);
	spare_areas_hold();
	if (!alive) {
		at = client_calls.mmap(NULL, BLOCK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1,
				       0);
		if (at == MAP_FAILED || client_calls.madvise(at, BLOCK, MADV_WIPEONFORK)) {
			rc = -errno;
		} else {
			alive = at;
			atomic_store(alive, true);
		}
	}
	pthread_mutex_unlock(&client_lock);
	return rc;
}

bool mappings_alive(void)
{
	return alive && atomic_load_explicit(alive, memory_order_relaxed);
}

void mappings_forked(void)
{
	if (alive)
		atomic_store(alive, true);
	for (size_t i = 0; i < all_count;) {
		struct mapping *m = set_of()->entries[i].m;

		/* What the parent has stored it says itself. */
		m->marks = false;
		if (!m->dont_fork) {
			i++;
			continue;
		}
		(void)client_calls.munmap((void *)m->lo, m->hi - m->lo);
		mapping_remove(m);
		m->next = left;
		left = m;
	}
}

void mappings_left_put(void)
{
	struct mapping *list;

	pthread_mutex_lock(&client_lock);
	list = left;
	left = NULL;
	pthread_mutex_unlock(&client_lock);
	mappings_put(list);
}
