/* SPDX-License-Identifier: BSD-3-Clause */
/* The calls for mappings. Records and addresses change together, under client_lock: a revoke never touches addresses that are somebody else's by then. */
#include <errno.h>
#include <sys/mman.h>
#include <time.h>

#include "client/calls.h"
#include "client/guard.h"
#include "client/map.h"
#include "client/mapping.h"
#include "client/memory.h"
#include "client/reopen.h"
#include "client/section.h"
#include "client/session.h"
#include "client/store.h"

#define exported __attribute__((visibility("default")))

#define BLOCK 4096u
#define PAUSE_NS 1000000
#define FLUSH_BYTES (1u << 20) /* in one section */

#define FLAGS_FIXED (MAP_FIXED | MAP_FIXED_NOREPLACE)
/* What changes nothing here, or is done. */
#define FLAGS_KNOWN                                                                             \
	(MAP_TYPE | FLAGS_FIXED | MAP_NORESERVE | MAP_NONBLOCK | MAP_POPULATE | MAP_DENYWRITE | \
	 MAP_EXECUTABLE | MAP_STACK)

static void *failure(int rc)
{
	return (void *)(intptr_t)rc;
}

static int flags_check(const struct umbra_file *file, int prot, int flags)
{
	int type = flags & MAP_TYPE;
	bool shared = type == MAP_SHARED || type == MAP_SHARED_VALIDATE;

	if (!shared && type != MAP_PRIVATE)
		return -EINVAL;
	if (!file->can_read || (shared && (prot & PROT_WRITE) && !file->can_write))
		return -EACCES;
	if ((flags & ~FLAGS_KNOWN) || (prot & ~(PROT_READ | PROT_WRITE)) ||
	    (!shared && (prot & PROT_WRITE)) || (file->appends && (prot & PROT_WRITE)))
		return -EOPNOTSUPP;
	return 0;
}

/* Whether it can be done at all is asked for now: once there is a mapping there is no way back. */
static int mappable(struct mapped *mapped, uint64_t off, size_t len, bool store, uint64_t *unit)
{
	const struct timespec pause = { .tv_nsec = PAUSE_NS };
	struct holding *h = mapped->file->holding;
	int64_t since_ns = client_now_ns();
	const struct view *v;
	int rc;

	/* Others open the file just now, perhaps, and have not attached it yet. (EAGAIN: it has been asked for a moment ago.) */
	while (((rc = map_ask(mapped->file, off, len, false)) == -EBUSY || rc == -EAGAIN) &&
	       client_now_ns() - since_ns < BUSY_LOAD_NS)
		nanosleep(&pause, NULL);
	if (rc)
		return -EOPNOTSUPP;
	pthread_mutex_lock(&client_lock);
	v = atomic_load_explicit(&h->view, memory_order_relaxed);
	*unit = v ? whole_unit(h->session->align_bytes) : 0;
	if (*unit == 0 || (store && !v->store))
		rc = -EOPNOTSUPP;
	if (h->leaving)
		rc = -EOPNOTSUPP;
	pthread_mutex_unlock(&client_lock);
	return rc;
}

/* m is in the set when this succeeds, over what was there before if that is wanted. */
static int mapping_begin(struct mapping *m, void *hint, size_t len, int fixed, uintptr_t *out)
{
	struct mapping *spares[2], *cut = NULL;
	int rc = mapping_spares_make(spares);
	uintptr_t at = 0;

	if (rc)
		return rc;
	pthread_mutex_lock(&client_lock);
	rc = mappings_reserve(3);
	if (rc == 0)
		rc = whole_fits(m, (uintptr_t)hint, len, fixed);
	if (rc == 0 && fixed & MAP_FIXED) {
		whole_cut((uintptr_t)hint, (uintptr_t)hint + len);
		whole_void((uintptr_t)hint, (uintptr_t)hint + len);
	}
	if (rc == 0)
		rc = whole_reserve(m, (uintptr_t)hint, len, fixed, &at);
	/* Without MAP_FIXED_NOREPLACE in the kernel it may be elsewhere. */
	if (rc == 0 && fixed && at != (uintptr_t)hint) {
		client_calls.munmap((void *)at, len);
		rc = -EEXIST;
	}
	/* It has become the kernel's since it was asked for. */
	if (rc == 0 && m->mapped->file->holding->leaving) {
		client_calls.munmap((void *)at, len);
		rc = -EOPNOTSUPP;
	}
	if (rc == 0) {
		m->lo = at;
		m->hi = at + len;
		m->areas = 1;
		mappings_change_begin();
		mappings_cut(at, at + len, spares, &cut);
		mapping_add(m);
		mappings_change_end();
		mappings_cut_end(cut, at, at + len);
		*out = at;
	}
	pthread_mutex_unlock(&client_lock);
	mapping_spares_free(spares);
	mappings_put(cut);
	return rc;
}

static int arguments_check(const struct umbra_file *file, const void *addr, size_t len, int prot, int flags,
			   off_t off)
{
	int rc = flags_check(file, prot, flags);
	uintptr_t lo, hi;

	if (rc == 0 && (len == 0 || off < 0 || off % BLOCK ||
			mapping_range(flags & FLAGS_FIXED ? addr : NULL, len, &lo, &hi)))
		rc = -EINVAL;
	if (rc == 0 && (uint64_t)off > INT64_MAX - u64_align_up(len, BLOCK))
		rc = -EOVERFLOW;
	return rc;
}

/* The user of mapped is the mapping's, or ends. */
static void *map(void *addr, size_t len, int prot, int flags, struct mapped *mapped, off_t off)
{
	struct mapping *m = NULL;
	uint64_t unit = BLOCK;
	uintptr_t lo = 0;
	int rc;

	len = u64_align_up(len, BLOCK);
	rc = mappable(mapped, (uint64_t)off, len, prot & PROT_WRITE, &unit);
	if (rc == 0) {
		m = memory_get_clear(sizeof(*m));
		rc = m ? 0 : -ENOMEM;
	}
	if (rc == 0) {
		m->off = (uint64_t)off;
		m->unit = unit;
		m->prot = prot & PROT_WRITE ? PROT_READ | PROT_WRITE : prot;
		m->shared = (flags & MAP_TYPE) != MAP_PRIVATE;
		m->mapped = mapped;
		rc = mapping_begin(m, addr, len, flags & FLAGS_FIXED, &lo);
	}
	if (rc == 0) {
		if (flags & MAP_POPULATE)
			(void)!mapping_prefault(lo, lo + len, prot & PROT_WRITE);
		return (void *)lo;
	}
	memory_put(m);
	mapped_put(mapped);
	return failure(rc);
}

static int map_prepare(void)
{
	int rc;

	mappings_left_put();
	rc = guard_install_mappings();
	return rc ? rc : mappings_init();
}

exported void *umbra_mmap(void *addr, size_t len, int prot, int flags, struct umbra_file *file, off_t off)
{
	int rc = arguments_check(file, addr, len, prot, flags, off);
	struct mapped *mapped;

	if (rc == 0)
		rc = map_prepare();
	if (rc == 0)
		rc = mapped_get(file, &mapped);
	return rc ? failure(rc) : map(addr, len, prot, flags, mapped, off);
}

void *mmap_own(void *addr, size_t len, int prot, int flags, struct umbra_file *file, off_t off)
{
	struct mapped *mapped;
	int wrong = arguments_check(file, addr, len, prot, flags, off), rc;

	if (!wrong)
		wrong = map_prepare();
	rc = mapped_adopt(file, &mapped);
	if (rc)
		return failure(rc);
	if (!wrong)
		return map(addr, len, prot, flags, mapped, off);
	mapped_put(mapped);
	return failure(wrong);
}

exported int umbra_munmap(void *addr, size_t len)
{
	struct mapping *spares[2], *cut = NULL;
	uintptr_t lo, hi;
	int rc = mapping_range(addr, len, &lo, &hi);

	if (rc || len == 0)
		return -EINVAL;
	rc = mapping_spares_make(spares);
	if (rc)
		return rc;
	pthread_mutex_lock(&client_lock);
	rc = mappings_reserve(2);
	if (rc == 0) {
		whole_cut(lo, hi);
		whole_void(lo, hi);
		rc = client_calls.munmap(addr, len) ? -errno : 0;
	}
	if (rc == 0) {
		mappings_cut(lo, hi, spares, &cut);
		mappings_cut_end(cut, lo, hi);
	}
	pthread_mutex_unlock(&client_lock);
	mapping_spares_free(spares);
	mappings_put(cut);
	return rc;
}

/* ---- msync ---- */

static void flush(void *dst, const void *src, size_t len)
{
	(void)dst;
	store_flush(src, len);
}

/* What the view has of [off, end) up to one part. 0: done, *off moves on; 1: to be asked for at *off. */
static int flush_part(struct holding *h, struct section *section, uint64_t *off, uint64_t end)
{
	const struct umbra_piece *p = NULL;
	const struct view *v;
	uint64_t n = end - *off;
	int rc = 0;

	section_enter(section);
	v = atomic_load_explicit(&h->view, memory_order_acquire);
	p = v ? pieces_find(v->pieces, *off) : NULL;
	if (!v || (!p && *off < v->size_bytes)) {
		rc = 1;
	} else if (p) {
		n = u64_min(n, p->file_off + p->len - *off);
		if (!(p->flags & (UMBRA_PIECE_HOLE | UMBRA_PIECE_LOST))) {
			n = u64_min(n, FLUSH_BYTES);
			/* Bad memory has nothing that could be kept. */
			(void)!guard_copy(flush, NULL, v->base + p->dev_off + (*off - p->file_off), n, NULL);
		}
	}
	section_leave(section);
	if (rc == 0)
		*off += n;
	return rc;
}

/* 1: not by us. */
static int flush_ask(struct umbra_file *f, uint64_t off, uint64_t len)
{
	int rc = map_ask(f, off, len, false);

	return rc ? file_away(f, rc) : 0;
}

static int file_flush(struct mapped *mapped, uint64_t off, uint64_t end)
{
	struct section *section = section_mine();
	int rc = 0;

	if (!section)
		return -ENOMEM;
	while (rc == 0 && off < end)
		if (flush_part(mapped->file->holding, section, &off, end))
			rc = flush_ask(mapped->file, off, end - off);
	if (rc <= 0)
		return rc;
	/* Not by us: the kernel knows the file. */
	return fdatasync(file_fd(mapped->file)) ? -errno : 0;
}

/* Of [lo, hi) within one mapping what may have been stored to. */
static int part_flush(const struct mapping_part *part)
{
	return part->off < part->end ? file_flush(part->mapped, part->off, part->end) : 0;
}

/* Under client_lock. */
static void part_stored(struct mapping_part *part, struct mapping *m)
{
	part->off = u64_max(m->off + (part->lo - m->lo), m->stored_lo);
	part->end = u64_min(m->off + (part->hi - m->lo), m->stored_hi);
	mapping_stored_note(m);
}

exported int umbra_msync(void *addr, size_t len, int flags)
{
	struct mapping_part part;
	uintptr_t lo, hi;
	int rc = mapping_range(addr, len, &lo, &hi), failed;

	if (rc || (flags & ~(MS_ASYNC | MS_SYNC | MS_INVALIDATE)) ||
	    (flags & (MS_ASYNC | MS_SYNC)) == (MS_ASYNC | MS_SYNC))
		return -EINVAL;
	for (; lo < hi; lo = part.hi) {
		mapping_part_get(lo, hi, part_stored, &part);
		if (part.mapped)
			failed = part_flush(&part);
		else
			failed = client_calls.msync((void *)lo, part.hi - lo, flags) ? -errno : 0;
		mapping_part_put(&part);
		/* What is not mapped is said at the end. */
		if (failed && failed != -ENOMEM)
			return failed;
		rc = failed ? failed : rc;
	}
	return rc;
}

/* ---- mprotect ---- */

static int part_check(const struct mapping *m, int prot)
{
	if (prot & ~(PROT_READ | PROT_WRITE | PROT_EXEC))
		return -EINVAL;
	if ((prot & PROT_WRITE) && m->shared && !m->mapped->file->can_write)
		return -EACCES;
	if ((prot & PROT_EXEC) || ((prot & PROT_WRITE) && !m->shared))
		return -EOPNOTSUPP;
	return 0;
}

/* Under client_lock. What is in place goes, and comes again as it may be then. */
static int protect(uintptr_t lo, uintptr_t hi, int prot, struct mapping *spares[2])
{
	struct mapping *m = mapping_find(lo), *cut, *next;
	int rc = m && !m->by_kernel ? part_check(m, prot) : -EAGAIN;

	prot = prot & PROT_WRITE ? PROT_READ | PROT_WRITE : prot;
	if (rc == 0 && m->prot == prot && hi <= m->hi)
		return 0;
	if (rc == 0)
		rc = mappings_reserve(2);
	if (rc)
		return rc;
	whole_cut(lo, hi);
	mappings_change_begin();
	mappings_cut(lo, hi, spares, &cut);
	for (m = cut; m; m = next) {
		next = m->next;
		m->prot = prot;
		mapping_add(m);
	}
	mappings_change_end();
	while ((m = mapping_next(lo)) && m->lo < hi) {
		mapping_void(m);
		mapping_stored_note(m);
		lo = m->hi;
	}
	return 0;
}

/* Within one mapping. -EAGAIN: it is no such thing any more. */
static int part_protect(const struct mapping_part *part, int prot)
{
	struct mapping *spares[2];
	int rc = mapping_spares_make(spares);

	if (rc)
		return rc;
	pthread_mutex_lock(&client_lock);
	rc = protect(part->lo, part->hi, prot, spares);
	pthread_mutex_unlock(&client_lock);
	mapping_spares_free(spares);
	if (rc != -EOPNOTSUPP)
		return rc;
	/* For the kernel to do then. */
	rc = mappings_leave(part->mapped->file->holding);
	return rc ? rc : -EAGAIN;
}

exported int umbra_mprotect(void *addr, size_t len, int prot)
{
	struct mapping_part part;
	uintptr_t lo, hi;
	int rc = mapping_range(addr, len, &lo, &hi);

	while (rc == 0 && lo < hi) {
		mapping_part_get(lo, hi, NULL, &part);
		if (part.mapped)
			rc = part_protect(&part, prot);
		else if (client_calls.mprotect((void *)lo, part.hi - lo, prot))
			rc = -errno;
		mapping_part_put(&part);
		if (rc == 0)
			lo = part.hi;
		else if (rc == -EAGAIN)
			rc = 0;
	}
	return rc;
}
