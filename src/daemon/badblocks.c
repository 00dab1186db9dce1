/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A thread for the device's list of bad memory. See badblocks.h.
 *
 * The list is put in order as ranges of blocks of the file system, and compared with what has been seen to: each block is handled once as long as it is
 * listed. One that could not be (no space) is tried again with the next look, unless the file system keeps it in mind itself. A block that leaves the list and comes back is a new one.
 */
#include "daemon/badblocks.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "dax/badblocks.h"
#include "util/log.h"
#include "util/sabotage.h"

/* Blocks first .. end - 1. */
struct range {
	uint64_t first, end;
};

struct ranges {
	struct range *list;
	size_t count, room;
};

struct badblocks {
	struct fs *fs;
	struct dax *dax;
	int look_ms;
	int stop_fd;
	atomic_bool stop;
	pthread_t thread;
	struct ranges done; /* listed, and seen to; sorted, apart from each other */
	bool is_told;       /* that the list cannot be read */
	/* Of this look: blocks that could not be seen to, the first of them, and why. And how many the log was told of. */
	uint64_t left_count, left_blk, left_told;
	int left_rc;
};

/* ---- ranges ---- */

static int range_add(struct ranges *ranges, uint64_t first, uint64_t end)
{
	struct range *last = ranges->count > 0 ? &ranges->list[ranges->count - 1] : NULL;

	if (last && first >= last->first && first <= last->end) {
		last->end = u64_max(last->end, end);
		return 0;
	}
	if (ranges->count == ranges->room) {
		size_t room = ranges->room * 2 + 16;
		struct range *list = realloc(ranges->list, room * sizeof(*list));

		if (!list)
			return -ENOMEM;
		ranges->list = list;
		ranges->room = room;
	}
	ranges->list[ranges->count++] = (struct range){ first, end };
	return 0;
}

static int range_compare(const void *a, const void *b)
{
	const struct range *ra = a, *rb = b;

	return (ra->first > rb->first) - (ra->first < rb->first);
}

/* Sorted, and apart from each other. */
static void ranges_order(struct ranges *ranges)
{
	size_t count = ranges->count;

	if (count == 0 || sabotage_point("listed-sort"))
		return;
	qsort(ranges->list, count, sizeof(*ranges->list), range_compare);
	ranges->count = 0;
	for (size_t i = 0; i < count; i++)
		(void)range_add(ranges, ranges->list[i].first, ranges->list[i].end); /* there is room */
}

/* ---- a look ---- */

struct look {
	uint64_t size_blk;
	struct ranges listed;
};

/* Memory past the end of the file system is nobody's yet. */
static int listed_add(void *arg, uint64_t off, uint64_t len_bytes)
{
	struct look *look = arg;
	uint64_t first = off >> BLOCK_SHIFT, end;

	if (len_bytes == 0 || first >= look->size_blk)
		return 0;
	end = len_bytes > UINT64_MAX - off ? UINT64_MAX : off + len_bytes;
	return range_add(&look->listed, first, u64_min(look->size_blk, ((end - 1) >> BLOCK_SHIFT) + 1));
}

static int block_see(struct badblocks *bb, uint64_t blk)
{
	int rc = fs_poison_listed(bb->fs, blk << BLOCK_SHIFT);

	if (rc && bb->left_count++ == 0) {
		bb->left_blk = blk;
		bb->left_rc = rc;
	}
	/* The file system keeps it in mind itself. */
	if (rc == -EINPROGRESS)
		return 0;
	return rc;
}

/* A line for all of them, if there are more or fewer than before. */
static void left_tell(struct badblocks *bb)
{
	if (bb->left_count > 0 && bb->left_count != bb->left_told)
		log_warn(
			"blocks of the device's list of bad memory that stay in use for now: %llu, the first at 0x%llx of the pool: %s",
			(unsigned long long)bb->left_count, (unsigned long long)(bb->left_blk << BLOCK_SHIFT),
			strerror(-bb->left_rc));
	bb->left_told = bb->left_count;
}

/* Of a listed range what is not done yet; done grows by what is done now, or was before. */
static int range_see(struct badblocks *bb, const struct range *range, size_t *before, struct ranges *done)
{
	uint64_t blk = range->first, next;
	int rc = 0;

	for (; blk < range->end && !rc && !atomic_load(&bb->stop); blk = next) {
		const struct range *old;
		bool is_done;

		while (*before < bb->done.count && bb->done.list[*before].end <= blk)
			++*before;
		old = *before < bb->done.count ? &bb->done.list[*before] : NULL;
		is_done = old && old->first <= blk && !sabotage_point("listed-done");
		next = is_done ? u64_min(old->end, range->end) : blk + 1;
		if (is_done || block_see(bb, blk) == 0)
			rc = range_add(done, blk, next);
	}
	return rc;
}

static void listed_see(struct badblocks *bb, const struct ranges *listed)
{
	struct ranges done = { 0 };
	size_t before = 0;
	int rc = 0;

	for (size_t i = 0; i < listed->count && !rc; i++)
		rc = range_see(bb, &listed->list[i], &before, &done);
	free(bb->done.list);
	bb->done = done;
}

/* False: it cannot be read. */
static bool look(struct badblocks *bb)
{
	struct look look = { .size_blk = pool_size_blk(fs_pool(bb->fs)) };
	int rc = dax_badblocks_list(bb->dax, listed_add, &look);

	if (!rc) {
		ranges_order(&look.listed);
		bb->left_count = 0;
		listed_see(bb, &look.listed);
		if (!atomic_load(&bb->stop))
			left_tell(bb);
	} else if (!bb->is_told) {
		log_warn("the device's list of bad memory cannot be read: %s", strerror(-rc));
		bb->is_told = true;
	}
	free(look.listed.list);
	return rc == 0;
}

static void *badblocks_run(void *arg)
{
	struct badblocks *bb = arg;
	struct pollfd fds[2] = { { .fd = bb->stop_fd, .events = POLLIN }, { .events = POLLPRI } };
	int rc = dax_badblocks_open(bb->dax);

	if (rc) {
		log_debug("the device has no list of bad memory that could be read: %s", strerror(-rc));
		return NULL;
	}
	while (!atomic_load(&bb->stop)) {
		/* What cannot be read would wake us at once. */
		fds[1].fd = look(bb) ? dax_badblocks_fd(bb->dax) : -1;
		(void)poll(fds, ARRAY_SIZE(fds), bb->look_ms);
	}
	return NULL;
}

/* ---- start and stop ---- */

int badblocks_start(struct fs *fs, int look_ms, struct badblocks **out)
{
	struct dax *dax = pool_dax(fs_pool(fs));
	struct badblocks *bb;
	int rc;

	*out = NULL;
	if (!dax_is_device(dax) && !dax_badblocks_known(dax))
		return 0;
	bb = calloc(1, sizeof(*bb));
	if (!bb)
		return -ENOMEM;
	bb->fs = fs;
	bb->dax = dax;
	bb->look_ms = look_ms;
	bb->stop_fd = eventfd(0, EFD_CLOEXEC);
	rc = bb->stop_fd < 0 ? -errno : -pthread_create(&bb->thread, NULL, badblocks_run, bb);
	if (rc) {
		if (bb->stop_fd >= 0)
			close(bb->stop_fd);
		free(bb);
		return rc;
	}
	*out = bb;
	return 0;
}

void badblocks_stop(struct badblocks *bb)
{
	const uint64_t one = 1;

	if (!bb)
		return;
	atomic_store(&bb->stop, true);
	(void)!write(bb->stop_fd, &one, sizeof(one)); /* the first one always fits */
	pthread_join(bb->thread, NULL);
	close(bb->stop_fd);
	free(bb->done.list);
	free(bb);
}
