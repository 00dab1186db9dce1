/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What the kernel does with a request that a FUSE server was at when it was killed, while somebody else keeps the connection.
 *
 *	kernel_resend dev|uring DIR
 *
 * A server answers INIT, reads a MKDIR (over /dev/fuse, or over io_uring) and is killed. The next one, with the same connection, asks for what was
 * not answered to be sent again. Says 'sent again' or 'not sent again', and what became of the caller; status 0, or 1 where even that failed.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/fuse.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "fuse/resend_wire.h"
#include "fuse/ring.h"
#include "fuse/uring_wire.h"

#define REQUEST_SIZE (1u << 20)
#define WAIT_MS 2000
#define FEATURE_INIT_EXT (1u << 30)

static int fd;
static int held[2]; /* a byte: the request is there */
static bool by_uring;
static char *request;

static void die(const char *what)
{
	fprintf(stderr, "%s: %s\n", what, strerror(errno));
	exit(1);
}

static void reply(uint64_t unique, int error, const void *body, size_t size)
{
	char message[512];
	struct fuse_out_header out = { (uint32_t)(sizeof(out) + size), error, unique };

	memcpy(message, &out, sizeof(out));
	if (size)
		memcpy(message + sizeof(out), body, size);
	if (write(fd, message, out.len) < 0 && errno != ENOENT)
		die("reply");
}

static struct fuse_attr folder(uint64_t ino)
{
	return (struct fuse_attr){ .ino = ino, .mode = S_IFDIR | 0755, .nlink = 2, .blksize = 4096 };
}

static void reply_init(const struct fuse_in_header *in)
{
	struct fuse_init_out init = {
		.major = FUSE_KERNEL_VERSION,
		.minor = 36, /* so that it has flags2 */
		.max_readahead = 65536,
		.flags = FEATURE_INIT_EXT,
		.flags2 = (uint32_t)((RESEND_FEATURE | (by_uring ? URING_FEATURE : 0)) >> 32),
		.max_background = 16,
		.congestion_threshold = 12,
		.max_write = 131072,
		.time_gran = 1,
	};

	reply(in->unique, 0, &init, sizeof(init));
}

/* All that is asked on the way to a MKDIR. */
static void answer(const struct fuse_in_header *in)
{
	struct fuse_attr_out attr = { .attr = folder(1) };

	if (in->opcode == FUSE_INIT)
		reply_init(in);
	else if (in->opcode == FUSE_GETATTR)
		reply(in->unique, 0, &attr, sizeof(attr));
	else if (in->opcode == FUSE_LOOKUP)
		reply(in->unique, -ENOENT, NULL, 0);
	else if (in->opcode != FUSE_FORGET && in->opcode != FUSE_BATCH_FORGET && in->opcode != FUSE_INTERRUPT)
		reply(in->unique, -ENOSYS, NULL, 0);
}

static void answer_mkdir(uint64_t unique)
{
	struct fuse_entry_out entry = { .nodeid = 2, .generation = 1, .attr = folder(2) };

	reply(unique, 0, &entry, sizeof(entry));
}

/* Entries for each queue. How many of the kernel's cores there are; it takes none before all have one. */
static void ring_register(struct ring *ring, struct iovec (*iov)[2])
{
	long count = sysconf(_SC_NPROCESSORS_CONF);

	for (long i = 0; i < count; i++) {
		struct uring_cmd cmd = { .queue = (uint16_t)i };
		struct ring_command command = {
			.fd = fd,
			.op = URING_REGISTER,
			.tag = (uint64_t)i,
			.iov = iov[i],
			.bytes = &cmd,
			.bytes_size = sizeof(cmd),
		};

		iov[i][0] = (struct iovec){ aligned_alloc(4096, 4096), sizeof(struct uring_head) };
		iov[i][1] = (struct iovec){ aligned_alloc(4096, REQUEST_SIZE), REQUEST_SIZE };
		if (!ring_push(ring, &command))
			die("ring_push");
	}
}

/* Until a MKDIR is there, and then for ever; others are answered. */
static void serve_ring(void)
{
	struct iovec(*iov)[2] = calloc((size_t)sysconf(_SC_NPROCESSORS_CONF), sizeof(*iov));
	struct ring ring;

	if (ring_open(&ring, 64, 128))
		die("ring_open");
	ring_register(&ring, iov);
	for (;;) {
		uint64_t tag;
		int result;

		(void)!ring_enter(&ring, true);
		while (ring_pop(&ring, &tag, &result)) {
			struct uring_head *head = iov[tag][0].iov_base;
			const struct fuse_in_header *in = (const void *)head->in_out;
			struct fuse_out_header out = { sizeof(out), -ENOENT, in->unique };
			struct uring_cmd cmd = { .commit_id = head->ring.commit_id, .queue = (uint16_t)tag };
			struct ring_command command = {
				.fd = fd,
				.op = URING_COMMIT_AND_FETCH,
				.tag = tag,
				.bytes = &cmd,
				.bytes_size = sizeof(cmd),
			};

			if (result) {
				fprintf(stderr, "entry %d: %s\n", (int)tag, strerror(-result));
				exit(1);
			}
			if (in->opcode == FUSE_MKDIR) {
				(void)!write(held[1], "u", 1);
				for (;;)
					pause();
			}
			memcpy(head->in_out, &out, sizeof(out));
			head->ring.payload_size = 0;
			if (!ring_push(&ring, &command))
				die("ring_push");
		}
	}
}

static void serve_first(void)
{
	const struct fuse_in_header *in = (const void *)request;

	for (;;) {
		if (read(fd, request, REQUEST_SIZE) < 0)
			die("read");
		if (in->opcode == FUSE_MKDIR) {
			(void)!write(held[1], "d", 1);
			for (;;)
				pause();
		}
		answer(in);
		if (in->opcode == FUSE_INIT && by_uring)
			serve_ring();
	}
}

/* Whether the request came again. */
static bool serve_second(void)
{
	const struct fuse_in_header *in = (const void *)request;
	struct fuse_out_header notify = { sizeof(notify), RESEND_NOTIFY, 0 };
	struct pollfd pfd = { .fd = fd, .events = POLLIN };

	if (write(fd, &notify, sizeof(notify)) < 0) {
		printf("this kernel cannot send requests again: %s\n", strerror(errno));
		return false;
	}
	while (poll(&pfd, 1, WAIT_MS) > 0) {
		if (read(fd, request, REQUEST_SIZE) < 0)
			die("read");
		if (in->opcode != FUSE_MKDIR) {
			answer(in);
			continue;
		}
		printf("sent again, %s\n", in->unique & RESEND_UNIQUE ? "marked" : "not marked");
		answer_mkdir(in->unique);
		return true;
	}
	printf("not sent again\n");
	return false;
}

static pid_t child(void (*run)(void))
{
	pid_t pid = fork();

	if (pid < 0)
		die("fork");
	if (pid == 0) {
		run();
		exit(0);
	}
	return pid;
}

static const char *dir;

static void call(void)
{
	char path[4096];

	snprintf(path, sizeof(path), "%s/made", dir);
	exit(mkdir(path, 0755) ? errno : 0);
}

static void attach(void)
{
	char options[128];

	fd = open("/dev/fuse", O_RDWR | O_CLOEXEC);
	if (fd < 0)
		die("/dev/fuse");
	snprintf(options, sizeof(options), "fd=%d,rootmode=40000,user_id=0,group_id=0", fd);
	if (mount("kernel_resend", dir, "fuse.kernel_resend", MS_NOSUID | MS_NODEV, options))
		die("mount");
}

int main(int argc, char **argv)
{
	struct pollfd wait_held = { .events = POLLIN };
	pid_t server, caller;
	bool again;
	int status;

	if (argc != 3)
		return 2;
	by_uring = strcmp(argv[1], "uring") == 0;
	dir = argv[2];
	request = malloc(REQUEST_SIZE);
	setvbuf(stdout, NULL, _IOLBF, 0);
	if (!request || pipe(held))
		die("begin");
	attach();
	server = child(serve_first);
	caller = child(call);
	wait_held.fd = held[0];
	if (poll(&wait_held, 1, 10 * WAIT_MS) != 1)
		die("the request does not come");
	kill(server, SIGKILL);
	waitpid(server, &status, 0);
	if (waitpid(caller, &status, WNOHANG) == caller) {
		printf("the caller did not wait: %s\n", strerror(WEXITSTATUS(status)));
		again = false;
	} else {
		again = serve_second();
		if (!again) /* the connection ends, and nobody waits any more */
			umount2(dir, MNT_FORCE | MNT_DETACH);
		waitpid(caller, &status, 0);
		printf("the caller hears: %s\n", strerror(WEXITSTATUS(status)));
	}
	umount2(dir, MNT_DETACH);
	return again && status == 0 ? 0 : 3;
}
