/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What the files of this folder share; nobody outside includes it.
 */
#ifndef UMBRA_DAX_PRIV_H
#define UMBRA_DAX_PRIV_H

#include <pthread.h>
#include <stdatomic.h>
#include <sys/stat.h>

#include "dax/dax.h"

/* A pool is whole blocks of this size. */
#define DAX_BLOCK_BYTES 4096u

#define DAX_POPULATED 8192u

struct dax {
	uint8_t *base;
	_Atomic size_t map_bytes; /* mapped at base: size_bytes, rounded up to what can be mapped */
	_Atomic uint64_t size_bytes;
	uint64_t max_bytes; /* it can grow to so much: address space behind the end is kept for it */
	void *room;         /* all of that address space; NULL: there is none */
	size_t room_bytes;
	int map_flags;
	uint64_t align_bytes;
	uint64_t id; /* of this opening; never used again, as the address of this struct may be */
	int fd;
	enum dax_durability durability;
	const struct libpmem *pmem; /* of DAX_FLUSH */
	bool device;
	bool readonly;
	bool whole_blocks;     /* a plain file whose file system has no blocks smaller than ours */
	bool by_libpmem;       /* who mapped it must unmap it */
	bool by_caller;        /* the memory is not ours */
	atomic_bool by_pwrite; /* large stores may go through the file descriptor */
	atomic_bool failed;    /* the backing store refused an msync: takes no more stores */
	bool traced;
	_Atomic int early_fd;                                  /* 0: none */
	const struct dax_badblocks_ops *_Atomic badblocks_ops; /* NULL: no list of bad blocks */
	void *badblocks_ctx;
	dax_line_fn line_fn; /* NULL: none */
	void *line_ctx;
	struct dax_trace trace;
	char *path;
	_Atomic uint64_t populated[DAX_POPULATED]; /* populate.c */
	pthread_t filling;
	bool is_filling;
	atomic_bool filling_is_over;
};

/* One dax_open() under way. */
struct dax_opening {
	const char *path;
	const struct dax_opts *opts;
	char *why;
	size_t why_size;
};

/* Writes "PATH: message" to the opener's why and returns rc. */
int dax_why(const struct dax_opening *o, int rc, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

/* dax.c: what of the pool of whole_bytes is used (limit_bytes) and must be mapped, as multiples of align_bytes. */
void dax_size_set(const struct dax_opening *o, struct dax *dax, uint64_t whole_bytes);

/* file.c: gives the open plain file dax->fd its size, chooses the durability and maps it. */
must_check int file_map(const struct dax_opening *o, struct dax *dax);

/* file.c: dax_grow() of a plain file. */
must_check int file_grow(struct dax *dax, uint64_t size_bytes);

/* device.c */
must_check int device_check(const struct dax_opening *o,
			    dev_t rdev); /* is it device-DAX, before it is opened */
bool device_is_known(const char *path);  /* sysfs has such a device, though it may have no node */
must_check int device_map(const struct dax_opening *o, struct dax *dax, dev_t rdev);

/* guard.c: the list of mappings that a guard knows. Installs the handler if need be. -EMFILE when full. */
must_check int guard_mapping_add(const struct dax *dax);
void guard_mapping_remove(const struct dax *dax);

/* badblocks.c: what dax_badblocks_open() has found. */
void badblocks_close(struct dax *dax);

/* populate.c: the range is about to be stored to. */
void dax_populate(struct dax *dax, uint64_t off, size_t len_bytes);
/* populate.c: the end of what dax_fill() has begun. */
void filling_end(struct dax *dax);

/* store.c: forget this thread's unfenced stores of a pool that goes away. */
void store_forget(const struct dax *dax);

#endif
