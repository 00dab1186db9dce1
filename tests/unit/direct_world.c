/* SPDX-License-Identifier: BSD-3-Clause */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "direct_world.h"

struct testfs t;
struct registry *registry;
struct server *server;
uint64_t inos[FILES];
int device_fd;
_Atomic uint32_t others_open, others_write, drops;
void (*on_drop)(uint64_t ino);

/* ---- the mount ---- */

struct umbra_token token_of(uint64_t ino, unsigned mode)
{
	struct umbra_token token = { { 0 } };

	memcpy(token.bytes, &ino, sizeof(ino));
	token.bytes[8] = (uint8_t)mode;
	return token;
}

static int take_token(void *arg, const struct umbra_token *token, pid_t pid, struct token_file *file)
{
	(void)arg;
	assert_int_equal(pid, getpid());
	*file = (struct token_file){ .mode = token->bytes[8], .pid = pid, .open = token->bytes[9] };
	memcpy(&file->ino, token->bytes, sizeof(file->ino));
	return file->ino ? 0 : -EACCES;
}

static bool excuse_open(void *arg, uint64_t open)
{
	(void)arg;
	return open != 0;
}

static bool accuse_open(void *arg, uint64_t open)
{
	(void)arg, (void)open;
	atomic_fetch_add(&others_open, 1);
	return true;
}

static uint32_t cached_opens(void *arg, uint64_t ino)
{
	(void)arg, (void)ino;
	return atomic_load(&others_open);
}

static uint32_t through_opens(void *arg, uint64_t ino)
{
	(void)arg, (void)ino;
	return atomic_load(&others_write);
}

static int drop_pages(void *arg, uint64_t ino)
{
	uint64_t drop = fs_drop_begin(t.fs, ino);

	(void)arg;
	if (on_drop)
		on_drop(ino);
	fs_drop_end(t.fs, ino, drop);
	atomic_fetch_add(&drops, 1);
	return 0;
}

void up(const struct server_opts *more, unsigned revoke_ms)
{
	const struct registry_opts registry_opts = { .revoke_ms = revoke_ms };
	struct server_opts opts = *more;
	uint8_t *bytes = calloc(FILE_BLK, BLOCK_SIZE);

	assert_non_null(bytes);
	testfs_make(&t, NULL);
	for (unsigned i = 0; i < FILES; i++) {
		char name[8];

		snprintf(name, sizeof(name), "f%u", i);
		inos[i] = testfs_node(&t, INODE_ROOT, name, S_IFREG | 0644);
		memset(bytes, (int)i + 1, FILE_BLK * BLOCK_SIZE);
		assert_int_equal(fs_write(t.fs, &testfs_root, inos[i], bytes, FILE_BLK * BLOCK_SIZE, 0, 0),
				 FILE_BLK * BLOCK_SIZE);
	}
	free(bytes);
	device_fd = memfd_create("device", MFD_CLOEXEC);
	assert_true(device_fd >= 0);
	assert_int_equal(registry_open(t.fs, &registry_opts, &registry), 0);
	opts.fs = t.fs;
	opts.registry = registry;
	opts.mount = (struct server_mount){ NULL,         take_token,    excuse_open, accuse_open,
					    cached_opens, through_opens, drop_pages };
	opts.rights = DIRECT_RIGHTS_DEFAULT;
	opts.device_fd = device_fd;
	opts.listen_fd = opts.listen_fd ? opts.listen_fd : -1;
	opts.revoke_ms = revoke_ms;
	assert_int_equal(server_open(&opts, &server), 0);
	assert_int_equal(server_run(server), 0);
	atomic_store(&others_open, 0);
	atomic_store(&others_write, 0);
	atomic_store(&drops, 0);
	on_drop = NULL;
}

void down(void)
{
	server_stop(server);
	server_close(server);
	registry_close(registry);
	testfs_check(&t);
	testfs_free(&t);
	close(device_fd);
}

bool stats_are(uint64_t sessions, uint64_t quarantine_blk)
{
	struct registry_stats stats;

	registry_get_stats(registry, &stats);
	return stats.sessions == sessions && stats.quarantine_blk == quarantine_blk;
}

void stats_wait(uint64_t sessions, uint64_t quarantine_blk)
{
	const struct timespec step = { .tv_nsec = 5000000 };

	for (unsigned i = 0; i < 6000 && !stats_are(sessions, quarantine_blk); i++)
		nanosleep(&step, NULL);
	assert_true(stats_are(sessions, quarantine_blk));
}

/* ---- a client ---- */

void message_send(struct client *c, void *message, uint16_t type, uint32_t size)
{
	struct umbra_msg *msg = message;

	msg->size = size;
	msg->type = type;
	if (type != UMBRA_MSG_ACK)
		msg->id = ++c->id;
	assert_int_equal(send(c->fd, message, size, MSG_NOSIGNAL), size);
}

uint16_t message_next(struct client *c)
{
	union {
		struct cmsghdr header;
		char bytes[CMSG_SPACE(2 * sizeof(int))];
	} control;

	for (;;) {
		struct iovec iov = { c->in.bytes, sizeof(c->in) };
		struct msghdr msg = { .msg_iov = &iov,
				      .msg_iovlen = 1,
				      .msg_control = &control,
				      .msg_controllen = sizeof(control) };
		struct pollfd poll_in = { .fd = c->fd, .events = POLLIN };
		ssize_t n;

		assert_int_equal(poll(&poll_in, 1, WAIT_MS), 1);
		n = recvmsg(c->fd, &msg, MSG_CMSG_CLOEXEC);
		if (n <= 0)
			return 0;
		assert_int_equal(n, c->in.msg.size);
		if (c->in.msg.type == UMBRA_MSG_WELCOME) {
			int fds[2];

			memcpy(fds, CMSG_DATA(&control.header), sizeof(fds));
			c->device_fd = fds[0];
			c->slots = mmap(NULL, UMBRA_SLOTS * sizeof(*c->slots), PROT_READ | PROT_WRITE,
					MAP_SHARED, fds[1], 0);
			assert_ptr_not_equal(c->slots, MAP_FAILED);
			/* Nobody can make it smaller below the server. */
			assert_int_equal(ftruncate(fds[1], 0), -1);
			close(fds[1]);
		}
		if (c->in.msg.type != UMBRA_MSG_REVOKE)
			return c->in.msg.type;
		c->revokes++;
		if (!c->is_silent) {
			struct umbra_msg ack = { .id = c->in.msg.id };

			message_send(c, &ack, UMBRA_MSG_ACK, sizeof(ack));
		}
	}
}

uint16_t call(struct client *c, void *message, uint16_t type, uint32_t size)
{
	message_send(c, message, type, size);
	type = message_next(c);
	assert_true(type == 0 || c->in.msg.id == c->id);
	return type;
}

int client_connect(struct client *c)
{
	int fds[2];

	*c = (struct client){ .device_fd = -1 };
	assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, fds), 0);
	c->fd = fds[0];
	(void)!server_adopt(server, fds[1]);
	return fds[1];
}

void client_hello(struct client *c)
{
	struct umbra_msg_hello in = { .version = UMBRA_DIRECT_VERSION,
				      .rights = UMBRA_DIRECT_READ | UMBRA_DIRECT_WRITE };

	assert_int_equal(call(c, &in, UMBRA_MSG_HELLO, sizeof(in)), UMBRA_MSG_WELCOME);
}

void client_up(struct client *c)
{
	client_connect(c);
	client_hello(c);
}

void client_down(struct client *c, bool bye)
{
	struct umbra_msg msg = { 0 };

	if (bye)
		message_send(c, &msg, UMBRA_MSG_BYE, sizeof(msg));
	if (c->slots)
		munmap(c->slots, UMBRA_SLOTS * sizeof(*c->slots));
	if (c->device_fd >= 0)
		close(c->device_fd);
	close(c->fd);
}

uint32_t attach(struct client *c, uint64_t ino, unsigned mode)
{
	struct umbra_msg_attach in = { .token = token_of(ino, mode) };

	assert_int_equal(call(c, &in, UMBRA_MSG_ATTACH, sizeof(in)), UMBRA_MSG_ATTACHED);
	return c->in.attached.handle;
}

uint32_t map(struct client *c, uint32_t handle, uint64_t blk, uint64_t count_blk, uint32_t flags)
{
	struct umbra_msg_map in = {
		.handle = handle, .flags = flags, .off = blk * BLOCK_SIZE, .len = count_blk * BLOCK_SIZE
	};

	if (call(c, &in, UMBRA_MSG_MAP, sizeof(in)) == UMBRA_MSG_PIECES)
		return 0;
	assert_int_equal(c->in.msg.type, UMBRA_MSG_ERROR);
	return c->in.error.error;
}

uint16_t detach(struct client *c, uint32_t handle)
{
	struct umbra_msg_detach in = { .handle = handle };

	return call(c, &in, UMBRA_MSG_DETACH, sizeof(in));
}

int truncate_to(uint64_t ino, uint64_t size_blk)
{
	const struct fs_set set = { .what = FS_SET_SIZE, .size = size_blk * BLOCK_SIZE };
	struct inode_attr attr;

	return fs_setattr(t.fs, &testfs_root, ino, &set, &attr);
}
