/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A client asks for attributes, one round trip each, while another process streams: it writes a file, drops it from the cache and reads it, in
 * calls of 1 MiB, again and again. How long the slowest hundredth of the first one's calls take.
 */
#define _GNU_SOURCE
#include "work.h"

#include <fcntl.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define SECONDS 3u
#define CALLS_MAX (1u << 21)

/* What the one who streams has moved so far; shared with it. */
static _Atomic uint64_t *streamed_bytes;

static void stream(struct work *w)
{
	int fd = openat(w->dir_fd, "stream", O_RDWR | O_CLOEXEC);
	char *buf = aligned_alloc(BLK_BYTES, MIB_BYTES);

	need(fd >= 0 && buf, "stream");
	for (;;) {
		for (uint64_t off_bytes = 0; off_bytes < w->size_bytes; off_bytes += MIB_BYTES) {
			write_full(w, fd, MIB_BYTES, off_bytes);
			atomic_fetch_add(streamed_bytes, MIB_BYTES);
		}
		need(fsync(fd) == 0, "fsync");
		need(posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED) == 0, "posix_fadvise");
		for (uint64_t off_bytes = 0; off_bytes < w->size_bytes; off_bytes += MIB_BYTES) {
			need(pread(fd, buf, MIB_BYTES, (off_t)off_bytes) == MIB_BYTES, "read");
			atomic_fetch_add(streamed_bytes, MIB_BYTES);
		}
	}
}

static void prepare_beside(struct work *w)
{
	need(close(file_fill(w, "stream", w->size_bytes)) == 0, "close");
	w->fd = file_create(w, 0);
	streamed_bytes = mmap(NULL, BLK_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	need(streamed_bytes != MAP_FAILED, "mmap");
}

static pid_t stream_start(struct work *w)
{
	pid_t pid = fork();

	need(pid >= 0, "fork");
	if (pid == 0) {
		need(prctl(PR_SET_PDEATHSIG, SIGKILL) == 0, "prctl");
		stream(w);
	}
	while (atomic_load(streamed_bytes) == 0) {
		need(waitpid(pid, NULL, WNOHANG) == 0, "the one who streams ended");
		usleep(1000);
	}
	return pid;
}

static void stream_end(pid_t pid)
{
	int status = 0;

	need(kill(pid, SIGKILL) == 0 && waitpid(pid, &status, 0) == pid, "kill");
	need(WIFSIGNALED(status), "the one who streams ended");
}

static void run_beside(struct work *w)
{
	uint32_t *took_ns = malloc(CALLS_MAX * sizeof(*took_ns));
	pid_t pid = stream_start(w);
	uint64_t start_ns = now_ns(), before_bytes = atomic_load(streamed_bytes), call_ns = start_ns;
	struct statx stx;

	need(took_ns, "memory");
	while (w->done_count < CALLS_MAX && call_ns - start_ns < SECONDS * 1000000000ull) {
		uint64_t end_ns;

		need(statx(w->fd, "", AT_EMPTY_PATH | AT_STATX_FORCE_SYNC, STATX_BASIC_STATS, &stx) == 0,
		     "statx");
		end_ns = now_ns();
		took_ns[w->done_count++] = end_ns - call_ns < UINT32_MAX ? (uint32_t)(end_ns - call_ns) :
									   UINT32_MAX;
		call_ns = end_ns;
	}
	w->wall_ns = call_ns - start_ns;
	w->done_bytes = atomic_load(streamed_bytes) - before_bytes;
	stream_end(pid);
	w->busy_p99_ns = p99_ns(took_ns, w->done_count);
	free(took_ns);
}

const struct row beside_rows[] = {
	{ .name = "getattr_p99",
	  .size_bytes = 256ull * MIB_BYTES,
	  .prepare = prepare_beside,
	  .run = run_beside },
	{ .name = NULL },
};
