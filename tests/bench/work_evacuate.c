/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A range with a large file is emptied, while somebody reads the file at random. The timed part is all of `umbractl evacuate`; besides, how
 * long the slowest hundredth of the reads took before it and meanwhile.
 */
#define _GNU_SOURCE
#include "work.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "../../include/umbra/ioctl.h"

#define QUIET_READS 20000u
#define STRIDE 7919u /* coprime to the number of blocks: each is read once, from memory, not from the cache */

/* The one who reads. */
static struct {
	pthread_t thread;
	uint32_t *took_ns; /* of each read, of which there are as many as blocks */
	uint64_t blocks_count, quiet_count, done_count;
	atomic_bool stops;
} reader;

/* All that will be moved to has been used before: the first touch of memory costs more than a copy. */
static void space_touch(const struct work *w)
{
	struct statvfs st;

	need(fstatvfs(w->dir_fd, &st) == 0, "statvfs");
	need(close(file_fill(w, "filler", (uint64_t)st.f_bavail * st.f_frsize / 100 * 98)) == 0, "close");
	need(unlinkat(w->dir_fd, "filler", 0) == 0, "unlink");
	need(syncfs(w->dir_fd) == 0, "syncfs");
}

static void blocks_read(const struct work *w, uint64_t end)
{
	char buf[BLK_BYTES];

	for (; reader.done_count < end && !atomic_load(&reader.stops); reader.done_count++) {
		uint64_t blk = reader.done_count * STRIDE % reader.blocks_count, start_ns = now_ns(), ns;

		need(pread(w->fd, buf, sizeof(buf), (off_t)(blk * BLK_BYTES)) == (ssize_t)sizeof(buf),
		     "read");
		ns = now_ns() - start_ns;
		reader.took_ns[reader.done_count] = ns < UINT32_MAX ? (uint32_t)ns : UINT32_MAX;
	}
}

/* From the first to the last block of the file on the device. */
static void range_find(const struct work *w, uint64_t *off, uint64_t *len)
{
	static struct umbra_extents e;
	uint64_t lo = UINT64_MAX, hi = 0;

	memset(&e, 0, sizeof(e));
	do {
		e.off = e.count ? e.extents[e.count - 1].file_off + e.extents[e.count - 1].len : 0;
		e.count = 0;
		need(ioctl(w->fd, UMBRA_IOC_EXTENTS, &e) == 0, "extents");
		for (uint32_t i = 0; i < e.count; i++) {
			uint64_t start = e.extents[i].dev_off, end = start + e.extents[i].len;

			lo = start < lo ? start : lo;
			hi = end > hi ? end : hi;
		}
	} while (e.count > 0 && !(e.extents[e.count - 1].flags & UMBRA_EXTENT_LAST));
	*off = lo;
	*len = hi - lo;
}

/* All of it; how many bytes have moved. Its status is 3 where something had to stay: what has moved counts. */
static uint64_t evacuate(const struct work *w)
{
	char command[8192], text[65536], *moved;
	uint64_t off, len;
	size_t n;
	FILE *f;

	range_find(w, &off, &len);
	snprintf(command, sizeof(command), "exec '%s' evacuate --json %llu+%llu '%s'", w->umbractl,
		 (unsigned long long)off, (unsigned long long)len, w->dir);
	f = popen(command, "re");
	need(f != NULL, "popen");
	n = fread(text, 1, sizeof(text) - 1, f);
	need(pclose(f) != -1, "pclose");
	text[n] = '\0';
	moved = strstr(text, "\"moved_bytes\":");
	need(moved != NULL, "umbractl evacuate");
	return strtoull(moved + strlen("\"moved_bytes\":"), NULL, 10);
}

static void prepare_evacuate(struct work *w)
{
	need(w->umbractl != NULL, "umbractl");
	w->fd = file_fill(w, "data", w->size_bytes);
	space_touch(w);
	/* There and back: by the server too, which has written with system calls until now. */
	for (unsigned i = 0; i < 2; i++)
		(void)evacuate(w);
	file_chill(w->fd, w->size_bytes);
	need(posix_fadvise(w->fd, 0, 0, POSIX_FADV_RANDOM) == 0, "posix_fadvise");
	reader.blocks_count = w->size_bytes / BLK_BYTES;
	reader.took_ns = malloc(reader.blocks_count * sizeof(*reader.took_ns));
	need(reader.took_ns, "memory");
	reader.quiet_count = reader.blocks_count / 2 < QUIET_READS ? reader.blocks_count / 2 : QUIET_READS;
	blocks_read(w, reader.quiet_count);
}

static void *reader_run(void *arg)
{
	const struct work *w = arg;

	blocks_read(w, reader.blocks_count);
	return NULL;
}

static void run_evacuate(struct work *w)
{
	uint64_t start_ns;

	errno = pthread_create(&reader.thread, NULL, reader_run, w);
	need(errno == 0, "pthread_create");
	start_ns = now_ns();
	w->done_bytes = evacuate(w);
	w->wall_ns = now_ns() - start_ns;
	atomic_store(&reader.stops, true);
	pthread_join(reader.thread, NULL);
	w->done_count = w->done_bytes / BLK_BYTES;
	if (w->done_bytes < w->size_bytes)
		fprintf(stderr, "work: %llu bytes moved of %llu\n", (unsigned long long)w->done_bytes,
			(unsigned long long)w->size_bytes);
	if (reader.done_count - reader.quiet_count < 1000)
		fprintf(stderr, "work: %llu reads while it ran, not enough for a hundredth\n",
			(unsigned long long)(reader.done_count - reader.quiet_count));
	w->busy_p99_ns = p99_ns(reader.took_ns + reader.quiet_count, reader.done_count - reader.quiet_count);
	w->quiet_p99_ns = p99_ns(reader.took_ns, reader.quiet_count);
	free(reader.took_ns);
}

const struct row evacuate_rows[] = {
	{ .name = "evacuate",
	  .size_bytes = 1024ull * MIB_BYTES,
	  .prepare = prepare_evacuate,
	  .run = run_evacuate },
	{ .name = NULL },
};
