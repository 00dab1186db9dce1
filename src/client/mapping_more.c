/* SPDX-License-Identifier: BSD-3-Clause */
/* Mappings that move, grow and are advised about; and what else is mapped over them. As in mapping_calls.c records and addresses change together. */
#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>

#include "client/calls.h"
#include "client/mapping.h"
#include "client/memory.h"
#include "client/reopen.h"
#include "client/session.h"

#define exported __attribute__((visibility("default")))

#define BLOCK 4096u

static void *failure(int rc)
{
	return (void *)(intptr_t)rc;
}

/* Under client_lock: [lo, hi) is somebody else's now. */
static void forget(uintptr_t lo, uintptr_t hi, struct mapping *spares[2], struct mapping **cut)
{
	struct mapping **end = cut, *more;

	mappings_cut(lo, hi, spares, &more);
	mappings_cut_end(more, lo, hi);
	while (*end)
		end = &(*end)->next;
	*end = more;
}

/* ---- something else in their place ---- */

void *mappings_replace_by(uintptr_t lo, uintptr_t hi, void *(*call)(void *arg), void *arg)
{
	struct mapping *spares[2], *cut = NULL;
	void *at = MAP_FAILED;
	int rc = mapping_spares_make(spares);

	if (rc)
		return failure(rc);
	pthread_mutex_lock(&client_lock);
	rc = mappings_reserve(2);
	if (rc == 0) {
		whole_cut(lo, hi);
		whole_void(lo, hi);
		at = call(arg);
		rc = at == MAP_FAILED ? -errno : 0;
	}
	if (rc == 0)
		forget(lo, hi, spares, &cut);
	pthread_mutex_unlock(&client_lock);
	mapping_spares_free(spares);
	mappings_put(cut);
	return rc ? failure(rc) : at;
}

struct placed {
	void *at, *from;
	size_t len, old_len;
	int prot, flags;
};

static void *place_memory(void *arg)
{
	const struct placed *p = arg;

	return client_calls.mmap(p->at, p->len, p->prot, p->flags, -1, 0);
}

static void *place_moved(void *arg)
{
	const struct placed *p = arg;

	return client_calls.mremap(p->from, p->old_len, p->len, p->flags, p->at);
}

void *mappings_replace(void *addr, size_t len, int prot, int flags, int fd, off_t off)
{
	struct placed p = { .at = addr, .len = len, .old_len = len, .prot = prot, .flags = flags };
	uintptr_t lo, hi;
	void *at;

	if (mapping_range(addr, len, &lo, &hi) || lo == hi)
		return failure(-EINVAL);
	if (fd < 0 || (flags & MAP_ANONYMOUS))
		return mappings_replace_by(lo, hi, place_memory, &p);
	/* Mapping a file may ask its file system, and that may ask us: not under the lock. */
	p.from = client_calls.mmap(NULL, len, prot, flags & ~MAP_FIXED, fd, off);
	if (p.from == MAP_FAILED)
		return failure(-errno);
	p.flags = MREMAP_MAYMOVE | MREMAP_FIXED;
	at = mappings_replace_by(lo, hi, place_moved, &p);
	if (at != addr)
		(void)client_calls.munmap(p.from, len);
	return at;
}

/* ---- mremap ---- */

struct move {
	uintptr_t old, target; /* target: only with MREMAP_FIXED */
	size_t old_len, new_len;
	int flags;
};

static int move_check(const struct move *mv)
{
	if (mv->flags & ~(MREMAP_MAYMOVE | MREMAP_FIXED | MREMAP_DONTUNMAP) || mv->old % BLOCK ||
	    mv->new_len == 0)
		return -EINVAL;
	if ((mv->flags & (MREMAP_FIXED | MREMAP_DONTUNMAP)) && !(mv->flags & MREMAP_MAYMOVE))
		return -EINVAL;
	if ((mv->flags & MREMAP_DONTUNMAP) && mv->old_len != mv->new_len)
		return -EINVAL;
	if ((mv->flags & MREMAP_FIXED) && (mv->target % BLOCK || (mv->target < mv->old + mv->old_len &&
								  mv->old < mv->target + mv->new_len)))
		return -EINVAL;
	return 0;
}

/* Under client_lock. The mapping that all of the old range is in. */
static int old_find(const struct move *mv, struct mapping **out)
{
	struct mapping *m = mapping_find(mv->old);

	if (m)
		mapping_join(m, mv->old + mv->old_len);
	if (!m || mv->old_len > m->hi - mv->old)
		return -EFAULT;
	if (mv->old_len == 0 && !m->shared)
		return -EINVAL;
	if (m->off + (mv->old - m->lo) > (uint64_t)INT64_MAX - mv->new_len)
		return -EINVAL;
	*out = m;
	return 0;
}

/* -ENOMEM: it cannot. */
static int grow_in_place(const struct move *mv)
{
	uintptr_t at = 0, from, to;
	struct mapping *m = NULL;
	int rc;

	pthread_mutex_lock(&client_lock);
	rc = old_find(mv, &m);
	if (rc == 0 && (mv->old_len == 0 || mv->old + mv->old_len != m->hi))
		rc = -ENOMEM;
	if (rc == 0) {
		/* Up to there it has addresses already. */
		from = u64_align_up(m->hi, m->unit);
		to = u64_align_up(mv->old + mv->new_len, m->unit);
		if (from < to && addresses_reserve(from, to - from, 0, MAP_FIXED_NOREPLACE, &at))
			rc = -ENOMEM;
		if (rc == 0 && from < to && at != from) {
			(void)client_calls.munmap((void *)at, to - from);
			rc = -ENOMEM;
		}
	}
	if (rc == 0) {
		mappings_change_begin();
		mapping_remove(m);
		m->hi = mv->old + mv->new_len;
		mapping_add(m);
		mappings_change_end();
	}
	pthread_mutex_unlock(&client_lock);
	return rc;
}

/* Under client_lock. */
static int move_locked(const struct move *mv, struct mapping *new, struct mapping *spares[2][2],
		       struct mapping **cut)
{
	bool keep = mv->old_len == 0 || (mv->flags & MREMAP_DONTUNMAP);
	int fixed = mv->flags & MREMAP_FIXED ? MAP_FIXED : 0;
	struct mapping *m;
	int rc = old_find(mv, &m);

	if (rc == 0)
		rc = mappings_reserve(5);
	if (rc)
		return rc;
	if (!keep)
		whole_cut(mv->old, mv->old + mv->old_len);
	*new = *m;
	new->off = m->off + (mv->old - m->lo);
	new->placed_lo = new->placed_hi = 0;
	new->storable = new->marks = false;
	new->areas = 1;
	if (mv->flags & MREMAP_FIXED) {
		whole_cut(mv->target, mv->target + mv->new_len);
		whole_void(mv->target, mv->target + mv->new_len);
	}
	/* There it is for the kernel: as one that was cut. */
	if (whole_fits(new, mv->target, mv->new_len, fixed))
		new->unit = BLOCK;
	rc = whole_reserve(new, mv->target, mv->new_len, fixed, &new->lo);
	if (rc)
		return rc;
	new->hi = new->lo + mv->new_len;
	new->mapped->users++;
	mappings_change_begin();
	forget(new->lo, new->hi, spares[0], cut);
	mapping_add(new);
	mappings_change_end();
	if (!keep) {
		whole_void(mv->old, mv->old + mv->old_len);
		(void)client_calls.munmap((void *)mv->old, mv->old_len);
		forget(mv->old, mv->old + mv->old_len, spares[1], cut);
	}
	return 0;
}

/* Under client_lock: of one that is the kernel's now. */
static int move_kernels(const struct move *mv, struct mapping *new, struct mapping *spares[2][2],
			struct mapping **cut)
{
	struct mapping *m = mapping_find(mv->old);
	struct placed p = { .at = (void *)mv->target,
			    .from = (void *)mv->old,
			    .len = mv->new_len,
			    .old_len = mv->old_len,
			    .flags = mv->flags };
	void *at;
	int rc = mappings_reserve(5);

	if (rc)
		return rc;
	*new = *m;
	new->off = m->off + (mv->old - m->lo);
	if (mv->flags & MREMAP_FIXED) {
		whole_cut(mv->target, mv->target + mv->new_len);
		whole_void(mv->target, mv->target + mv->new_len);
	}
	if (mv->old_len > 0)
		whole_cut(mv->old, mv->old + mv->old_len);
	at = place_moved(&p);
	if (at == MAP_FAILED)
		return -errno;
	new->lo = (uintptr_t)at;
	new->hi = new->lo + mv->new_len;
	new->unit = BLOCK; /* nothing is reserved around it */
	new->mapped->users++;
	mappings_change_begin();
	forget(new->lo, new->hi, spares[0], cut);
	if (mv->old_len > 0 && !(mv->flags & MREMAP_DONTUNMAP))
		forget(mv->old, mv->old + mv->old_len, spares[1], cut);
	mapping_add(new);
	mappings_change_end();
	return 0;
}

static void *move(const struct move *mv)
{
	struct mapping *new = memory_get_clear(sizeof(*new)), *m, *spares[2][2], *cut = NULL;
	uintptr_t at = 0;
	int rc = new ? mapping_spares_make(spares[0]) : -ENOMEM;

	if (rc == 0) {
		rc = mapping_spares_make(spares[1]);
		if (rc)
			mapping_spares_free(spares[0]);
	}
	if (rc) {
		memory_put(new);
		return failure(rc);
	}
	pthread_mutex_lock(&client_lock);
	m = mapping_find(mv->old);
	rc = m && m->by_kernel ? move_kernels(mv, new, spares, &cut) : move_locked(mv, new, spares, &cut);
	at = new->lo;
	pthread_mutex_unlock(&client_lock);
	mapping_spares_free(spares[0]);
	mapping_spares_free(spares[1]);
	mappings_put(cut);
	if (rc)
		memory_put(new);
	return rc ? failure(rc) : (void *)at;
}

/* Of one that is not ours; what it moves over may be. */
static void *move_other(const struct move *mv)
{
	struct placed p = { .at = (void *)mv->target,
			    .from = (void *)mv->old,
			    .len = mv->new_len,
			    .old_len = mv->old_len,
			    .flags = mv->flags };
	void *at;

	if (mv->flags & MREMAP_FIXED && mappings_touch(mv->target, mv->target + mv->new_len))
		return mappings_replace_by(mv->target, mv->target + mv->new_len, place_moved, &p);
	at = place_moved(&p);
	return at == MAP_FAILED ? failure(-errno) : at;
}

static bool is_kernels(uintptr_t addr)
{
	const struct mapping *m;
	bool is;

	pthread_mutex_lock(&client_lock);
	m = mapping_find(addr);
	is = m && m->by_kernel;
	pthread_mutex_unlock(&client_lock);
	return is;
}

exported void *umbra_mremap(void *addr, size_t old_len, size_t new_len, int flags, void *new_addr)
{
	struct move mv = { .old = (uintptr_t)addr, .flags = flags };
	int rc;

	if (old_len > (size_t)INT64_MAX - BLOCK || new_len > (size_t)INT64_MAX - BLOCK)
		return failure(-EINVAL);
	mv.old_len = u64_align_up(old_len, BLOCK);
	mv.new_len = u64_align_up(new_len, BLOCK);
	mv.target = flags & MREMAP_FIXED ? (uintptr_t)new_addr : 0;
	if (!mappings_touch(mv.old, mv.old + (mv.old_len ? mv.old_len : 1)))
		return move_other(&mv);
	if (is_kernels(mv.old))
		return move(&mv);
	rc = move_check(&mv);
	if (rc)
		return failure(rc);
	if (mv.new_len < mv.old_len) {
		rc = umbra_munmap((char *)addr + mv.new_len, mv.old_len - mv.new_len);
		if (rc)
			return failure(rc);
		mv.old_len = mv.new_len;
	}
	if (flags & (MREMAP_FIXED | MREMAP_DONTUNMAP))
		return move(&mv);
	if (mv.new_len == mv.old_len)
		return addr;
	rc = grow_in_place(&mv);
	if (rc == -ENOMEM && (flags & MREMAP_MAYMOVE))
		return move(&mv);
	return rc ? failure(rc) : addr;
}

/* ---- madvise ---- */

/* What holes are made in. */
static void part_removed(struct mapping_part *part, struct mapping *m)
{
	if (!m->shared || !(m->prot & PROT_WRITE))
		return;
	part->off = m->off + (part->lo - m->lo);
	part->end = m->off + (part->hi - m->lo);
}

static int part_remove(const struct mapping_part *part)
{
	if (part->off == part->end)
		return -EACCES;
	return fallocate(file_fd(part->mapped->file), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
			 (off_t)part->off, (off_t)(part->end - part->off)) ?
		       -errno :
		       0;
}

/* Of those that are the kernel's too. */
static int part_dont_fork(const struct mapping_part *part, bool dont)
{
	struct mapping *spares[2], *cut, *next;
	int rc = mapping_spares_make(spares);

	if (rc)
		return rc;
	pthread_mutex_lock(&client_lock);
	rc = mappings_reserve(2);
	if (rc == 0) {
		whole_cut(part->lo, part->hi);
		mappings_change_begin();
		mappings_cut(part->lo, part->hi, spares, &cut);
		for (struct mapping *m = cut; m; m = next) {
			next = m->next;
			m->dont_fork = dont;
			mapping_add(m);
		}
		mappings_change_end();
	}
	pthread_mutex_unlock(&client_lock);
	mapping_spares_free(spares);
	return rc;
}

static int part_advise(const struct mapping_part *part, int advice)
{
	switch (advice) {
	case MADV_NORMAL:
	case MADV_RANDOM:
	case MADV_SEQUENTIAL:
	case MADV_DONTNEED: /* the file has all that was stored */
	case MADV_MERGEABLE:
	case MADV_UNMERGEABLE:
	case MADV_HUGEPAGE:
	case MADV_NOHUGEPAGE:
	case MADV_DONTDUMP:
	case MADV_DODUMP:
	case MADV_COLD:
	case MADV_PAGEOUT:
		return 0;
	case MADV_WILLNEED:
		return mapping_prefault(part->lo, part->hi, false) == -EAGAIN ? -EAGAIN : 0;
	case MADV_POPULATE_READ:
		return mapping_prefault(part->lo, part->hi, false);
	case MADV_POPULATE_WRITE:
		return mapping_prefault(part->lo, part->hi, true);
	case MADV_REMOVE:
		return part_remove(part);
	case MADV_DONTFORK:
		return part_dont_fork(part, true);
	case MADV_DOFORK:
		return part_dont_fork(part, false);
	default:
		return -EINVAL;
	}
}

static int other_advise(const struct mapping_part *part, int advice)
{
	if (client_calls.madvise((void *)part->lo, part->hi - part->lo, advice))
		return -errno;
	return advice == MADV_DONTFORK || advice == MADV_DOFORK ?
		       part_dont_fork(part, advice == MADV_DONTFORK) :
		       0;
}

exported int umbra_madvise(void *addr, size_t len, int advice)
{
	struct mapping_part part;
	uintptr_t lo, hi;
	int rc = mapping_range(addr, len, &lo, &hi), failed;

	if (rc)
		return rc;
	for (; lo < hi; lo = part.hi) {
		mapping_part_get(lo, hi, advice == MADV_REMOVE ? part_removed : NULL, &part);
		if (part.mapped)
			failed = part_advise(&part, advice);
		else
			failed = other_advise(&part, advice);
		/* It has become the kernel's. */
		if (part.mapped && failed == -EAGAIN) {
			part.hi = lo;
			failed = 0;
		}
		mapping_part_put(&part);
		/* What is not mapped is said at the end. */
		if (failed && failed != -ENOMEM)
			return failed;
		rc = failed ? failed : rc;
	}
	return rc;
}
