/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Messages to the server of direct mappings, on a file system that is there and without a mount. One thread: who is asked to let go never answers in time,
 * unless he has let go by himself.
 *
 * Input: steps, each: u8 what | u8 which connection | arguments.
 */
#include <errno.h>
#include <linux/falloc.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "daemon/direct_priv.h"
#include "fuzz/input.h"
#include "fuzz/pool.h"
#include "fuzz/target.h"

#define STEPS_MAX 60u
#define PEERS 2u
#define MESSAGE_RAW 0x80u  /* of the input alone */
#define MESSAGE_SIZE 0x40u /* a size of the input */
#define MESSAGE_ODD 0x20u  /* offsets of the input as they are */

static struct fs *fs;
static struct server *server;
static int device_fd, clients[PEERS];
static uint64_t numbers[PEERS];

/* ---- the mount ---- */

static int take_token(void *arg, const struct umbra_token *token, pid_t pid, struct token_file *file)
{
	(void)arg;
	*file = (struct token_file){
		.ino = fuzz_inos[token->bytes[0] % FUZZ_FILES],
		.mode = token->bytes[1] & (OPS_FH_READ | OPS_FH_WRITE),
		.pid = pid,
	};
	return token->bytes[2] & 0x80 ? -EACCES : 0;
}

static bool excuse_open(void *arg, uint64_t open)
{
	(void)arg, (void)open;
	return false;
}

static bool accuse_open(void *arg, uint64_t open)
{
	(void)arg, (void)open;
	return false;
}

static uint32_t cached_opens(void *arg, uint64_t ino)
{
	(void)arg;
	return ino == fuzz_inos[FUZZ_PIECES];
}

static int drop_pages(void *arg, uint64_t ino)
{
	(void)arg, (void)ino;
	return 0;
}

/* ---- connections ---- */

static struct peer *peer_of(unsigned which)
{
	for (struct peer *peer = server->peers; peer; peer = peer->next)
		if (peer->number == numbers[which])
			return peer;
	return NULL;
}

/* Answers are not looked at; descriptors that come with them are closed by the kernel. */
static void client_drain(unsigned which)
{
	uint8_t bytes[UMBRA_MSG_MAX];

	while (clients[which] >= 0 && recv(clients[which], bytes, sizeof(bytes), MSG_DONTWAIT) > 0)
		;
}

static void client_up(unsigned which)
{
	int fds[2];

	if (clients[which] >= 0)
		close(clients[which]);
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, fds))
		fuzz_stop("socketpair", -errno, "");
	clients[which] = fds[0];
	if (server_adopt(server, fds[1]))
		fuzz_stop("server_adopt", 0, "");
	numbers[which] = server->last_number;
}

/* As the thread that has found it by its number. */
static void client_read(struct peer *peer)
{
	peer_hold(peer);
	peer_read(peer);
}

static void client_send(unsigned which, const void *message, size_t size)
{
	struct peer *peer = peer_of(which);

	if (!peer) {
		client_up(which);
		peer = peer_of(which);
	}
	(void)!send(clients[which], message, size, MSG_NOSIGNAL | MSG_DONTWAIT);
	client_read(peer);
	client_drain(which);
}

/* ---- steps ---- */

static uint64_t offset_take(struct input *in, uint8_t what)
{
	return what & MESSAGE_ODD ? input_u64(in) : (uint64_t)(input_u8(in) % 64) << BLOCK_SHIFT;
}

/* A message that is sound but for what the input says. */
static void message_step(struct input *in, uint8_t what, unsigned which)
{
	union {
		struct umbra_msg msg;
		struct umbra_msg_hello hello;
		struct umbra_msg_attach attach;
		struct umbra_msg_map map;
		struct umbra_msg_bad bad;
		uint8_t bytes[2 * MESSAGE_MAX];
	} m = { .msg = { 0 } };
	static const uint16_t types[] = { UMBRA_MSG_HELLO, UMBRA_MSG_ATTACH, UMBRA_MSG_DETACH,
					  UMBRA_MSG_MAP,   UMBRA_MSG_MAP,    UMBRA_MSG_RELEASE,
					  UMBRA_MSG_ACK,   UMBRA_MSG_BAD,    UMBRA_MSG_BYE };
	static const uint8_t sizes[] = {
		sizeof(m.hello), sizeof(m.attach), 24, sizeof(m.map), sizeof(m.map), sizeof(m.map), 16, 32, 16
	};
	unsigned kind = input_u8(in) % ARRAY_SIZE(types);
	size_t size = sizes[kind];

	if (what & (MESSAGE_RAW | MESSAGE_SIZE))
		size = input_u8(in);
	input_bytes(in, m.bytes + sizeof(m.msg), kind == 1 ? 8 : 4);
	if (!(what & MESSAGE_RAW)) {
		m.msg = (struct umbra_msg){
			.size = (uint32_t)size,
			.type = types[kind],
			.id = input_u8(in),
		};
		if (types[kind] == UMBRA_MSG_HELLO) {
			m.hello.version = UMBRA_DIRECT_VERSION;
			m.hello.rights = 1 + input_u8(in) % 3;
		} else if (types[kind] == UMBRA_MSG_BAD) {
			m.bad.handle %= 8;
			m.bad.off = offset_take(in, what);
		} else if (types[kind] == UMBRA_MSG_MAP || types[kind] == UMBRA_MSG_RELEASE) {
			m.map.handle %= 8;
			m.map.flags = types[kind] == UMBRA_MSG_MAP ? input_u8(in) % 5 : 0;
			m.map.off = offset_take(in, what);
			m.map.len = offset_take(in, what);
		} else if (types[kind] == UMBRA_MSG_DETACH) {
			m.map.handle %= 8;
		}
	} else {
		input_bytes(in, m.bytes, sizeof(m.bytes) < size ? sizeof(m.bytes) : size);
	}
	client_send(which, m.bytes, size);
}

/* Somebody else changes a file. */
static void change_step(struct input *in)
{
	const struct fs_cred root = { 0 };
	uint64_t ino = fuzz_inos[input_u8(in) % FUZZ_FILES], other = fuzz_inos[input_u8(in) % FUZZ_FILES];
	uint64_t off = (uint64_t)(input_u8(in) % 64) << BLOCK_SHIFT;
	uint8_t how = input_u8(in);
	struct fs_set set = { .what = FS_SET_SIZE, .size = off + how };
	struct inode_attr attr;

	switch (how % 4) {
	case 0:
		(void)!fs_setattr(fs, &root, ino, &set, &attr);
		break;
	case 1:
		(void)!fs_write(fs, &root, ino, "change", 6, off, 0);
		break;
	case 2:
		(void)!fs_fallocate(fs, &root, ino, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, off,
				    BLOCK_SIZE);
		break;
	default:
		(void)!fs_clone(fs, &root, ino, off, other, off, 4 * BLOCK_SIZE, 0, NULL);
	}
}

static void step(struct input *in)
{
	uint8_t what = input_u8(in);
	unsigned which = input_u8(in) % PEERS;

	switch (what % 8) {
	case 0:
		change_step(in);
		break;
	case 1:
		if (peer_of(which)) {
			shutdown(clients[which], SHUT_RDWR);
			client_read(peer_of(which));
		}
		tick(server);
		break;
	default:
		message_step(in, what, which);
	}
}

static void run(struct input *in)
{
	const struct registry_opts registry_opts = { .revoke_ms = 1 };
	struct server_opts opts = {
		.mount = { NULL, take_token, excuse_open, accuse_open, cached_opens, drop_pages },
		.rights = DIRECT_RIGHTS_DEFAULT,
		.device_fd = device_fd,
		.listen_fd = -1,
		.revoke_ms = 1,
	};
	struct umbra_msg_hello hello = {
		.msg = { .size = sizeof(hello), .type = UMBRA_MSG_HELLO },
		.version = UMBRA_DIRECT_VERSION,
		.rights = UMBRA_DIRECT_READ | UMBRA_DIRECT_WRITE,
	};

	opts.fs = fs;
	if (registry_open(fs, &registry_opts, &opts.registry) || server_open(&opts, &server))
		fuzz_stop("no memory", 0, "");
	for (unsigned i = 0; i < PEERS; i++) {
		clients[i] = -1;
		client_up(i);
		client_send(i, &hello, sizeof(hello));
	}
	for (unsigned i = 0; i < STEPS_MAX && in->size; i++)
		step(in);
	server_stop(server);
	for (unsigned i = 0; i < PEERS; i++)
		close(clients[i]);
	/* Nobody has a descriptor of the device any more. */
	tick(server);
	server_close(server);
	registry_close(opts.registry);
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	(void)argc, (void)argv;
	fuzz_pool_make();
	device_fd = memfd_create("device", MFD_CLOEXEC);
	if (device_fd < 0)
		fuzz_stop("memfd_create", -errno, "");
	return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct fs_opts opts = { 0 };
	struct pool_opts pool_opts = { 0 };
	struct dax *dax = fuzz_dax_open(false);
	struct input in = { data, size };
	struct pool *pool;
	char why[256];

	if (pool_open(dax, &pool_opts, &pool, why, sizeof(why)) || fs_open(pool, &opts, &fs))
		fuzz_stop("the pool", 0, "");
	run(&in);
	fs_close(fs);
	pool_close(pool, true);
	dax_close(dax);
	fuzz_pool_restore();
	return 0;
}
