/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The ring, by system calls. See ring.h.
 *
 * Who submits may submit what another thread has pushed, and the other way round: a call takes the oldest ones.
 */
#include "fuse/ring.h"

#include <assert.h>
#include <errno.h>
#include <linux/io_uring.h>
#include <string.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#define ENTRY_SIZE 128u /* with room for a command */

static_assert(ENTRY_SIZE - offsetof(struct io_uring_sqe, cmd) == RING_COMMAND_SIZE, "the kernel's layout");

static int maps_make(struct ring *ring, const struct io_uring_params *params)
{
	size_t sq_bytes = params->sq_off.array + params->sq_entries * sizeof(uint32_t);
	size_t cq_bytes = params->cq_off.cqes + params->cq_entries * sizeof(struct io_uring_cqe);
	int flags = MAP_SHARED | MAP_POPULATE;

	ring->map_bytes = sq_bytes > cq_bytes ? sq_bytes : cq_bytes;
	ring->map = mmap(NULL, ring->map_bytes, PROT_READ | PROT_WRITE, flags, ring->fd, IORING_OFF_SQ_RING);
	if (ring->map == MAP_FAILED)
		return -errno;
	ring->entries_bytes = (size_t)params->sq_entries * ENTRY_SIZE;
	ring->entries =
		mmap(NULL, ring->entries_bytes, PROT_READ | PROT_WRITE, flags, ring->fd, IORING_OFF_SQES);
	if (ring->entries == MAP_FAILED)
		return -errno;
	/* A child has no use for it, and must not keep it. */
	(void)madvise(ring->map, ring->map_bytes, MADV_DONTFORK);
	(void)madvise(ring->entries, ring->entries_bytes, MADV_DONTFORK);
	return 0;
}

static void fields_find(struct ring *ring, const struct io_uring_params *params)
{
	char *map = ring->map;
	uint32_t *array = (uint32_t *)(map + params->sq_off.array);

	ring->sq_head = (_Atomic unsigned *)(map + params->sq_off.head);
	ring->sq_tail = (_Atomic unsigned *)(map + params->sq_off.tail);
	ring->cq_head = (_Atomic unsigned *)(map + params->cq_off.head);
	ring->cq_tail = (_Atomic unsigned *)(map + params->cq_off.tail);
	ring->sq_mask = params->sq_entries - 1;
	ring->cq_mask = params->cq_entries - 1;
	ring->sq_count = params->sq_entries;
	ring->completions = map + params->cq_off.cqes;
	for (uint32_t i = 0; i < params->sq_entries; i++)
		array[i] = i;
}

int ring_open(struct ring *ring, unsigned commands, unsigned completions)
{
	struct io_uring_params params = {
		.flags = IORING_SETUP_SQE128 | IORING_SETUP_CQSIZE | IORING_SETUP_CLAMP,
		.cq_entries = completions,
	};
	unsigned needed = IORING_FEAT_SINGLE_MMAP | IORING_FEAT_NODROP;
	int rc;

	*ring = (struct ring){ .map = MAP_FAILED, .entries = MAP_FAILED };
	ring->fd = (int)syscall(SYS_io_uring_setup, commands, &params);
	if (ring->fd < 0)
		return -errno;
	rc = (params.features & needed) == needed ? maps_make(ring, &params) : -ENOSYS;
	if (rc)
		ring_close(ring);
	else
		fields_find(ring, &params);
	return rc;
}

void ring_close(struct ring *ring)
{
	if (ring->fd < 0)
		return;
	if (ring->entries != MAP_FAILED)
		munmap(ring->entries, ring->entries_bytes);
	if (ring->map != MAP_FAILED)
		munmap(ring->map, ring->map_bytes);
	close(ring->fd);
	ring->fd = -1;
}

bool ring_push(struct ring *ring, const struct ring_command *command)
{
	unsigned tail = atomic_load_explicit(ring->sq_tail, memory_order_relaxed);
	struct io_uring_sqe *sqe;

	assert(command->bytes_size <= RING_COMMAND_SIZE);
	if (tail - atomic_load_explicit(ring->sq_head, memory_order_acquire) >= ring->sq_count)
		return false;
	sqe = (void *)((char *)ring->entries + (size_t)(tail & ring->sq_mask) * ENTRY_SIZE);
	memset(sqe, 0, ENTRY_SIZE);
	sqe->opcode = IORING_OP_URING_CMD;
	sqe->fd = command->fd;
	sqe->cmd_op = command->op;
	sqe->user_data = command->tag;
	sqe->addr = (uintptr_t)command->iov;
	sqe->len = command->iov ? 2 : 0;
	memcpy((char *)sqe + offsetof(struct io_uring_sqe, cmd), command->bytes, command->bytes_size);
	atomic_store_explicit(ring->sq_tail, tail + 1, memory_order_release);
	return true;
}

bool ring_pop(struct ring *ring, uint64_t *tag, int *result)
{
	unsigned head = atomic_load_explicit(ring->cq_head, memory_order_relaxed);
	const struct io_uring_cqe *cqe;

	if (head == atomic_load_explicit(ring->cq_tail, memory_order_acquire))
		return false;
	cqe = (const struct io_uring_cqe *)ring->completions + (head & ring->cq_mask);
	*tag = cqe->user_data;
	*result = cqe->res;
	atomic_store_explicit(ring->cq_head, head + 1, memory_order_release);
	return true;
}

bool ring_is_ready(const struct ring *ring)
{
	return atomic_load_explicit(ring->cq_head, memory_order_relaxed) !=
	       atomic_load_explicit(ring->cq_tail, memory_order_acquire);
}

static unsigned pushed_count(const struct ring *ring)
{
	return atomic_load_explicit(ring->sq_tail, memory_order_acquire) -
	       atomic_load_explicit(ring->sq_head, memory_order_acquire);
}

int ring_enter(struct ring *ring, bool wait)
{
	unsigned pushed = pushed_count(ring);

	if (syscall(SYS_io_uring_enter, ring->fd, pushed, wait ? 1 : 0, IORING_ENTER_GETEVENTS, NULL, 0) < 0)
		return -errno;
	return 0;
}

int ring_submit(struct ring *ring)
{
	unsigned until = atomic_load_explicit(ring->sq_tail, memory_order_acquire);

	/* The head passes it when all before are taken; numbers wrap around. */
	while ((int)(until - atomic_load_explicit(ring->sq_head, memory_order_acquire)) > 0) {
		int rc = ring_enter(ring, false);

		if (rc == -EAGAIN || rc == -EBUSY || rc == -EINTR)
			sched_yield(); /* out of memory for a moment; completions that nobody has taken yet */
		else if (rc)
			return rc;
	}
	return 0;
}
