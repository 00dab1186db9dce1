/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Mappings that the application has of files (umbra_mmap()). Their addresses are reserved, without any right of access; pieces of the file come there when they are
 * touched (mapping_fault.c), and go when the holding lets go of them. All is under client_lock: what is in place is at any time a part of what the view of its
 * holding has, storable only where that is.
 *
 * Pieces are copies of the session's own mapping of the device (mremap(2) with an old length of 0): that needs no descriptor, and they are not inherited by children, as it is not.
 */
#ifndef UMBRA_CLIENT_MAPPING_H
#define UMBRA_CLIENT_MAPPING_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "client/file.h"
#include "util/util.h"

/* The library's own attachment of a file that is mapped: it outlives the application's, and its descriptor. */
struct mapped {
	struct umbra_file *file;
	unsigned users; /* mappings, and whoever works for one */
	struct mapped *next;
};

struct mapping {
	uintptr_t lo, hi;
	uint64_t off;  /* in the file, of lo */
	uint64_t unit; /* what is put in place, and goes, are multiples of it (mapping_whole.c) */
	int prot;      /* PROT_READ, PROT_WRITE */
	bool shared;
	bool by_kernel; /* it is the kernel's mapping now */
	bool dont_fork; /* a child has nothing there */
	struct mapped *mapped;
	struct mapping *next; /* of the holding; of those that are in no set any more */
	/* Where something may be in place, and where it may have been stored to: offsets in the file */
	uint64_t placed_lo, placed_hi;
	uint64_t stored_lo, stored_hi;
	bool storable;         /* some of what is in place may be stored to */
	bool marks;            /* it may have been, since the file was marked for it */
	uint64_t areas;        /* at most so many the kernel has of it */
	uint64_t window_bytes; /* of what is known and not in place */
	uint64_t window_end;
};

/* Under client_lock. NULL: none has this address. */
struct mapping *mapping_find(uintptr_t addr);
/* The one with the lowest address of those that end after addr. NULL: none. */
struct mapping *mapping_next(uintptr_t addr);

/* Whether any has an address in [lo, hi). Locks nothing, for calls of the program's of which most are about other addresses. */
bool mappings_touch(uintptr_t lo, uintptr_t hi);
/* There are none, for sure; without waiting for who changes them. */
bool mappings_are_none(void);

/* Of [lo, hi) of the file nothing is in place any more. Under client_lock. */
void mappings_void(struct holding *h, uint64_t lo, uint64_t hi);

/* The same for all of one mapping, which is in the set. */
void mapping_void(struct mapping *m);

/* A place for so many more mappings. -ENOMEM. Under client_lock. */
must_check int mappings_reserve(unsigned more);
/*
 * Around changes that are one for whoever reads without locks: he reads again, and so finds what stays a mapping all the time. One may be part of another one. No system call is made in between.
 */
void mappings_change_begin(void);
void mappings_change_end(void);
/* Into the set, where nobody has its addresses. There is a place. */
void mapping_add(struct mapping *m);
/* Out of the set; what is there is not touched. */
void mapping_remove(struct mapping *m);
/* What follows m up to hi, as far as the kernel would have one area of it all, becomes a part of it. */
void mapping_join(struct mapping *m, uintptr_t hi);
/*
 * Cuts [lo, hi) out of the set; what is cut in two takes one of the two spares. Pieces of mappings that are cut out go to *out, linked by next, with their
 * users; what is there is not touched.
 */
void mappings_cut(uintptr_t lo, uintptr_t hi, struct mapping *spares[2], struct mapping **out);

enum place {
	PLACE_DONE,
	PLACE_ASK,    /* nothing is known there, or it cannot be stored to yet */
	PLACE_END,    /* it lies past the end of the file */
	PLACE_LOST,   /* bytes there are lost */
	PLACE_KERNEL, /* only the kernel can map what is there */
	PLACE_FAILED,
};
/*
 * Puts in place what the view has at off, and around it: in [lo, hi) where off is in it, else some neighbourhood; up to *end, and as it is wanted. Under client_lock.
 */
enum place mapping_place(struct mapping *m, uint64_t off, bool store, uint64_t lo, uint64_t hi,
			 uint64_t *end);
/* Accesses to the page at off give SIGBUS, until something else is put in place. Under client_lock. */
void mapping_place_bus(struct mapping *m, uint64_t off);

/* Whole pages of a range. -EINVAL: it is none. */
must_check int mapping_range(const void *addr, size_t len, uintptr_t *lo, uintptr_t *hi);
/* Two for mappings_cut(), and those that it left. -ENOMEM. */
must_check int mapping_spares_make(struct mapping *spares[2]);
void mapping_spares_free(struct mapping *spares[2]);
/* The file is marked if something may have been stored since it was, there or in other mappings. Under client_lock. */
void mapping_stored_note(struct mapping *m);

/* Under client_lock: of what mappings_cut() has left over. [lo, hi) is somebody else's by now, or nobody's. */
void mappings_cut_end(struct mapping *cut, uintptr_t lo, uintptr_t hi);

/* A range begins with: a part of one of ours, or addresses up to the next one of ours (which one that is the kernel's now may also be). */
struct mapping_part {
	uintptr_t lo, hi;
	struct mapped *mapped; /* with a user; NULL: the kernel's */
	uint64_t off, end;     /* the caller's */
};
/* look, if not NULL, is called under client_lock, where the part is of m. To be put. */
void mapping_part_get(uintptr_t lo, uintptr_t hi, void (*look)(struct mapping_part *part, struct mapping *m),
		      struct mapping_part *part);
void mapping_part_put(struct mapping_part *part);

/* Reserves addresses, for a file from off on. hint: NULL, or where; fixed: there, whatever is there. -errno. */
must_check int addresses_reserve(uintptr_t hint, size_t len, uint64_t off, int fixed, uintptr_t *out);

/* With one user more. Outside of client_lock. */
must_check int mapped_get(struct umbra_file *file, struct mapped **out);
/* The same for a file with a descriptor that is the library's own, and is not used otherwise: it becomes this one's, or ends. */
must_check int mapped_adopt(struct umbra_file *file, struct mapped **out);
void mapped_put(struct mapped *mapped);
/* Frees mappings that are in no set any more, and puts their files. Outside of client_lock. */
void mappings_put(struct mapping *list);

/* Once, before the first mapping. -errno. */
must_check int mappings_init(void);
/* False: this is a child that came to be without the handlers of fork(); nothing works there. */
bool mappings_alive(void);
/* In a child, under client_lock, when all is void: pages come anew when they are touched. */
void mappings_forked(void);
/* What the child does not have of them. Outside of client_lock. */
void mappings_left_put(void);

/* ---- mapping_calls.c ---- */

/* umbra_mmap() of a file as of mapped_adopt(). */
void *mmap_own(void *addr, size_t len, int prot, int flags, struct umbra_file *file, off_t off);

/* ---- mapping_more.c ---- */

/* As mmap(2) with MAP_FIXED, for something that is the kernel's, over mappings of ours; -errno as a pointer. */
void *mappings_replace(void *addr, size_t len, int prot, int flags, int fd, off_t off);
/* The same by another call, which puts something else all over [lo, hi), or gives MAP_FAILED and errno. It is made under client_lock. */
void *mappings_replace_by(uintptr_t lo, uintptr_t hi, void *(*call)(void *arg), void *arg);

/* ---- mapping_whole.c ---- */

/* What is put in place of a session's device at once; 0: it cannot be mapped in parts. */
uint64_t whole_unit(uint64_t align_bytes);
/* What can be put in place at off, and goes on from there: a piece of the view, or (m->unit) one that has all of the unit. PLACE_DONE: *out is. */
enum place piece_to_place(const struct mapping *m, const struct view *v, uint64_t off, bool store,
			  struct umbra_piece *out);
/* -EOPNOTSUPP: what is put in place cannot be there, or (fixed) those are not whole units. */
must_check int whole_fits(const struct mapping *m, uintptr_t hint, size_t len, int fixed);
/* Addresses for a mapping of len bytes, which fit: whole units around them are reserved too. As addresses_reserve(). */
must_check int whole_reserve(const struct mapping *m, uintptr_t hint, size_t len, int fixed, uintptr_t *out);
/* Before mappings are cut at lo and hi, which may be within a unit. Under client_lock, as those below. */
void whole_cut(uintptr_t lo, uintptr_t hi);
/* Nothing is in place in [lo, hi), nor in units that reach into it: other addresses may come there, or none. Of mappings of blocks nothing happens. */
void whole_void(uintptr_t lo, uintptr_t hi);
/* What was reserved around a mapping is nobody's, but for [lo, hi). */
void whole_unreserve(const struct mapping *m, uintptr_t lo, uintptr_t hi);

/* ---- mapping_fault.c ---- */

/* Whether it is an address in a mapping. For the handler of a signal that may come at any time: does not wait for locks, and is true when it cannot be told. */
bool mapping_is(uintptr_t addr);

enum fault {
	FAULT_NOT_OURS,
	FAULT_DONE, /* the access goes on */
	FAULT_BUS,  /* it is to be passed on as SIGBUS, or comes again as one */
};
/*
 * As by touching all of [lo, hi), until it cannot go on: 0, -ENOMEM (no mapping of ours there), -EFAULT (the touch would be a signal), -EINVAL (no right to store), -EAGAIN (it is the
 * kernel's).
 */
must_check int mapping_prefault(uintptr_t lo, uintptr_t hi, bool store);
/* By whoever has touched addr. bad: the memory there is (SIGBUS); bus: it came as SIGBUS. */
enum fault mapping_fault(uintptr_t addr, bool store, bool bus, bool bad);

/* ---- mapping_kernel.c ---- */

/*
 * All mappings of the file become the kernel's, at the same addresses, and nothing of it is attached while they are there; whoever touches one meanwhile waits. -errno of mmap(2): those
 * that are left are still ours. The caller has a user of one of them. Outside of client_lock.
 */
must_check int mappings_leave(struct holding *h);
/* The same for all files with a mapping in [lo, hi), and for one by its number. */
must_check int mappings_leave_range(uintptr_t lo, uintptr_t hi);
void mappings_leave_file(uint64_t dev, uint64_t ino);

#endif
