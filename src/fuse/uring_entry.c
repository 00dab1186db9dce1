/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Entries: buffers that take one request and its reply. See uring.c.
 *
 * A page with the head, then the payload, so that a request lies before its data in one piece, which begins at a page.
 */
#include <assert.h>
#include <errno.h>
#include <linux/fuse.h>
#include <stdlib.h>
#include <string.h>

#include "fuse/ops.h"
#include "fuse/uring_priv.h"

#define PAGE 4096u
#define PAYLOAD_SIZE (OPS_WRITE_MAX + PAGE)
#define ENTRIES_MAX 4096u
#define LARGE_BYTES 131072u

struct entry *uring_entry_new(struct queue *queue)
{
	struct entry *entry = calloc(1, sizeof(*entry));
	char *memory;

	if (!entry)
		return NULL;
	memory = aligned_alloc(PAGE, PAGE + PAYLOAD_SIZE);
	if (!memory) {
		free(entry);
		return NULL;
	}
	entry->queue = queue;
	entry->head = (struct uring_head *)memory;
	entry->payload = memory + PAGE;
	entry->iov[0] = (struct iovec){ entry->head, sizeof(*entry->head) };
	entry->iov[1] = (struct iovec){ entry->payload, PAYLOAD_SIZE };
	entry->is_new = true;
	return entry;
}

void uring_entry_free(struct entry *entry)
{
	free(entry->head);
	free(entry);
}

static bool entry_push(struct uring *uring, struct entry *entry, uint32_t op)
{
	struct uring_cmd cmd = {
		.commit_id = op == URING_COMMIT_AND_FETCH ? entry->head->ring.commit_id : 0,
		.queue = entry->queue->number,
	};
	struct ring_command command = {
		.fd = uring->session->fd,
		.op = op,
		.tag = (uintptr_t)entry,
		.iov = op == URING_REGISTER ? entry->iov : NULL,
		.bytes = &cmd,
		.bytes_size = sizeof(cmd),
	};

	return ring_push(&entry->queue->on->ring, &command);
}

bool uring_entry_add(struct uring *uring, struct queue *queue)
{
	struct entry *entry = uring_entry_new(queue);

	if (!entry)
		return false;
	entry->next = atomic_load(&uring->entries);
	while (!atomic_compare_exchange_weak(&uring->entries, &entry->next, entry))
		;
	if (!entry_push(uring, entry, URING_REGISTER))
		return false; /* stays in the list, which frees it */
	queue->entries_count++;
	return true;
}

void uring_entries_grow(struct uring *uring, struct queue *queue)
{
	while (queue->entries_count - queue->held_count < URING_DEPTH && queue->entries_count < ENTRIES_MAX)
		if (!uring_entry_add(uring, queue))
			break;
}

void uring_entry_hold(struct entry *entry, uint64_t unique)
{
	if (entry->is_held || atomic_load(&entry->unique) != unique)
		return;
	entry->is_held = true;
	entry->queue->held_count++;
}

void uring_entry_commit(struct uring *uring, struct entry *entry)
{
	struct core_ring *on = entry->queue->on;
	bool is_pushed;

	pthread_mutex_lock(&on->lock);
	if (entry->is_held) {
		entry->is_held = false;
		entry->queue->held_count--;
	}
	is_pushed = entry_push(uring, entry, URING_COMMIT_AND_FETCH);
	pthread_mutex_unlock(&on->lock);
	assert(is_pushed); /* there is room for each thread */
}

void uring_entry_fill(struct entry *entry, const struct iovec *iov, int count)
{
	struct fuse_out_header out;
	size_t size = 0, at;

	memcpy(&out, iov[0].iov_base, sizeof(out));
	for (int i = 1; i < count; i++)
		size += iov[i].iov_len;
	if (size > OPS_WRITE_MAX) {
		out.error = -EIO;
		size = 0;
	}
	at = size;
	for (int i = count - 1; i > 0 && size > 0; i--) {
		at -= iov[i].iov_len;
		if (iov[i].iov_base != entry->payload + at)
			memmove(entry->payload + at, iov[i].iov_base, iov[i].iov_len);
	}
	out.len = (uint32_t)(sizeof(out) + size);
	memcpy(entry->head->in_out, &out, sizeof(out));
	entry->head->ring.payload_size = (uint32_t)size;
}

char *uring_entry_join(struct entry *entry, size_t *size)
{
	const struct fuse_in_header *in = (const void *)entry->head->in_out;
	size_t payload_size = entry->head->ring.payload_size, op_size;
	char *request;

	if (in->len < sizeof(*in) + payload_size || payload_size > OPS_WRITE_MAX)
		return NULL;
	op_size = in->len - sizeof(*in) - payload_size;
	if (op_size > URING_OP_IN_SIZE)
		return NULL;
	request = entry->payload - op_size - sizeof(*in);
	memcpy(request, in, sizeof(*in));
	memcpy(request + sizeof(*in), entry->head->op_in, op_size);
	*size = in->len;
	return request;
}

bool uring_entry_goes_on(const struct entry *entry, uint64_t *end_bytes)
{
	const struct fuse_in_header *in = (const void *)entry->head->in_out;
	const struct fuse_read_in *read = (const void *)entry->head->op_in;
	bool goes_on;

	if (in->opcode != FUSE_READ || read->size < LARGE_BYTES)
		return false;
	goes_on = read->offset == *end_bytes;
	*end_bytes = read->offset + read->size;
	return goes_on;
}
