/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * File data of the in-memory store: one buffer per file, shared by clones until one of them is written.
 *
 * Small buffers come from malloc, large ones are mappings that grow by mremap, so that a growing file
 * is never copied and a hole costs no memory.
 */
#define _GNU_SOURCE
#include "null_store.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define MAP_MIN_BYTES (128u << 10)
#define SIZE_MAX_BYTES (1ull << 42)

static size_t cap_for(uint64_t size_bytes)
{
	size_t cap_bytes = 4096;

	while (cap_bytes < size_bytes)
		cap_bytes *= 2;
	return cap_bytes;
}

static void *map_anon(size_t size_bytes)
{
	return mmap(NULL, size_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1,
		    0);
}

static struct buf *buf_new(size_t cap_bytes)
{
	struct buf *buf = malloc(sizeof(*buf));

	if (!buf)
		return NULL;
	buf->refs_count = 1;
	buf->cap_bytes = cap_bytes;
	if (cap_bytes >= MAP_MIN_BYTES) {
		buf->mem = map_anon(cap_bytes);
		if (buf->mem == MAP_FAILED)
			buf->mem = NULL;
	} else {
		buf->mem = calloc(1, cap_bytes);
	}
	if (!buf->mem) {
		free(buf);
		return NULL;
	}
	return buf;
}

static void buf_put(struct buf *buf)
{
	if (!buf || __atomic_sub_fetch(&buf->refs_count, 1, __ATOMIC_ACQ_REL))
		return;
	if (buf->cap_bytes >= MAP_MIN_BYTES)
		munmap(buf->mem, buf->cap_bytes);
	else
		free(buf->mem);
	free(buf);
}

/* Makes the buffer this file's own, with room for size_bytes. */
static int buf_own(struct node *node, uint64_t size_bytes)
{
	struct buf *old = node->buf;
	size_t cap_bytes = cap_for(size_bytes);
	bool own = old && __atomic_load_n(&old->refs_count, __ATOMIC_ACQUIRE) == 1;
	struct buf *buf;

	if (size_bytes > SIZE_MAX_BYTES)
		return -EFBIG;
	if (own && old->cap_bytes >= size_bytes)
		return 0;
	if (own && old->cap_bytes >= MAP_MIN_BYTES) {
		char *mem = mremap(old->mem, old->cap_bytes, cap_bytes, MREMAP_MAYMOVE);

		if (mem == MAP_FAILED)
			return -ENOMEM;
		old->mem = mem;
		old->cap_bytes = cap_bytes;
		return 0;
	}
	buf = buf_new(cap_bytes);
	if (!buf)
		return -ENOMEM;
	if (old) {
		uint64_t keep_bytes = (uint64_t)node->st.st_size;

		memcpy(buf->mem, old->mem, keep_bytes < cap_bytes ? keep_bytes : cap_bytes);
		buf_put(old);
	}
	node->buf = buf;
	return 0;
}

static void zero(struct buf *buf, uint64_t from_bytes, uint64_t to_bytes)
{
	uint64_t page = 4096;
	uint64_t a = (from_bytes + page - 1) & ~(page - 1);
	uint64_t b = to_bytes & ~(page - 1);

	if (buf->cap_bytes < MAP_MIN_BYTES || b <= a) {
		memset(buf->mem + from_bytes, 0, to_bytes - from_bytes);
		return;
	}
	memset(buf->mem + from_bytes, 0, a - from_bytes);
	madvise(buf->mem + a, b - a, MADV_DONTNEED);
	memset(buf->mem + b, 0, to_bytes - b);
}

static void size_set(struct node *node, uint64_t size_bytes)
{
	node->st.st_size = (off_t)size_bytes;
	node->st.st_blocks = (blkcnt_t)((size_bytes + 4095) / 4096 * 8);
}

int data_resize(struct node *node, uint64_t size_bytes)
{
	uint64_t old_bytes = (uint64_t)node->st.st_size;
	int rc;

	if (size_bytes == 0) {
		buf_put(node->buf);
		node->buf = NULL;
	} else {
		rc = buf_own(node, size_bytes);
		if (rc)
			return rc;
		/* A copy of a shared buffer may have no room beyond the new size. */
		if (old_bytes > node->buf->cap_bytes)
			old_bytes = node->buf->cap_bytes;
		if (size_bytes < old_bytes)
			zero(node->buf, size_bytes, old_bytes);
	}
	size_set(node, size_bytes);
	return 0;
}

int data_write(struct node *node, const char *src, size_t size_bytes, uint64_t off_bytes)
{
	uint64_t end_bytes = off_bytes + size_bytes;
	uint64_t need_bytes = (uint64_t)node->st.st_size;
	int rc;

	if (end_bytes < off_bytes)
		return -EFBIG;
	if (end_bytes > need_bytes)
		need_bytes = end_bytes;
	rc = buf_own(node, need_bytes);
	if (rc)
		return rc;
	memcpy(node->buf->mem + off_bytes, src, size_bytes);
	if (need_bytes != (uint64_t)node->st.st_size)
		size_set(node, need_bytes);
	return 0;
}

const char *data_read(const struct node *node, uint64_t off_bytes, size_t *size_bytes)
{
	uint64_t left_bytes;

	if (off_bytes >= (uint64_t)node->st.st_size) {
		*size_bytes = 0;
		return NULL;
	}
	left_bytes = (uint64_t)node->st.st_size - off_bytes;
	if (*size_bytes > left_bytes)
		*size_bytes = left_bytes;
	return node->buf->mem + off_bytes;
}

int data_clone(struct node *dst, uint64_t dst_off_bytes, struct node *src, uint64_t src_off_bytes,
	       size_t size_bytes)
{
	uint64_t src_bytes = (uint64_t)src->st.st_size;

	if (dst != src && !dst_off_bytes && !src_off_bytes && size_bytes == src_bytes &&
	    (uint64_t)dst->st.st_size <= size_bytes) {
		__atomic_add_fetch(&src->buf->refs_count, 1, __ATOMIC_RELAXED);
		buf_put(dst->buf);
		dst->buf = src->buf;
		size_set(dst, size_bytes);
		return 0;
	}
	if (dst == src) {
		/* The buffer may move while it grows: grow first. */
		int rc = buf_own(dst, dst_off_bytes + size_bytes > src_bytes ? dst_off_bytes + size_bytes :
									       src_bytes);

		if (rc)
			return rc;
	}
	return data_write(dst, src->buf->mem + src_off_bytes, size_bytes, dst_off_bytes);
}

int data_punch(struct node *node, uint64_t off_bytes, uint64_t size_bytes)
{
	uint64_t end_bytes = off_bytes + size_bytes;
	int rc;

	if (end_bytes > (uint64_t)node->st.st_size)
		end_bytes = (uint64_t)node->st.st_size;
	if (off_bytes >= end_bytes)
		return 0;
	rc = buf_own(node, (uint64_t)node->st.st_size);
	if (rc)
		return rc;
	zero(node->buf, off_bytes, end_bytes);
	return 0;
}
