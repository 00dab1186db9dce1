/* SPDX-License-Identifier: BSD-3-Clause */
#include "fake_daemon.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
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

static struct fake *the_fake;

static void must(bool ok, const char *what)
{
	if (ok)
		return;
	fprintf(stderr, "fake daemon: %s: %s\n", what, strerror(errno));
	abort();
}

#define MUST(x) must((x), #x)

uint64_t fake_word(uint32_t block, uint32_t tag)
{
	return (uint64_t)block << 32 | tag;
}

static uint8_t *dev_at(struct fake *f, uint32_t dev)
{
	return f->base + (uint64_t)dev * FAKE_BLOCK;
}

static void fill(uint8_t *at, uint64_t word)
{
	for (unsigned i = 0; i < FAKE_BLOCK / 8; i++)
		memcpy(at + i * 8, &word, 8);
}

/* ---- blocks; under the lock ---- */

static bool is_poison(struct fake *f, uint32_t dev)
{
	const uint8_t *at = dev_at(f, dev);

	for (unsigned i = 0; i < FAKE_BLOCK / 8; i++) {
		uint64_t word;

		memcpy(&word, at + i * 8, 8);
		if (word != FAKE_POISON)
			return false;
	}
	return true;
}

static uint32_t dev_take(struct fake *f, bool strewn)
{
	uint32_t step = strewn ? 2 : 1, dev;

	for (uint32_t i = 0; i < 2 * f->dev_blocks; i++) {
		dev = f->dev_next;
		f->dev_next += step;
		if (f->dev_next >= f->dev_blocks)
			f->dev_next = 1 + (f->dev_next & 1);
		if (f->used[dev])
			continue;
		f->used[dev] = 1;
		if (f->poisoned[dev] && !is_poison(f, dev))
			f->late = true;
		f->poisoned[dev] = 0;
		return dev;
	}
	must(false, "the device is full");
	return 0;
}

static void dev_give(struct fake *f, uint32_t dev)
{
	fill(dev_at(f, dev), FAKE_POISON);
	f->used[dev] = 0;
	f->poisoned[dev] = 1;
}

static void share_ends(struct fake *f, struct fake_block *b)
{
	if (b->copy && memcmp(b->copy, dev_at(f, b->dev), FAKE_BLOCK) != 0)
		f->late = true;
	free(b->copy);
	b->copy = NULL;
	b->shared = false;
}

static void block_move(struct fake *f, struct fake_block *b)
{
	uint32_t old = b->dev, dev;

	if (!old)
		return;
	dev = dev_take(f, f->strews);
	memcpy(dev_at(f, dev), dev_at(f, old), FAKE_BLOCK);
	share_ends(f, b);
	b->dev = dev;
	dev_give(f, old);
}

void fake_move(struct fake *f, uint32_t block)
{
	pthread_mutex_lock(&f->lock);
	block_move(f, &f->blocks[block]);
	pthread_mutex_unlock(&f->lock);
}

void fake_punch(struct fake *f, uint32_t block)
{
	struct fake_block *b = &f->blocks[block];

	pthread_mutex_lock(&f->lock);
	share_ends(f, b);
	if (b->dev)
		dev_give(f, b->dev);
	b->dev = 0;
	pthread_mutex_unlock(&f->lock);
}

void fake_share(struct fake *f, uint32_t block)
{
	struct fake_block *b = &f->blocks[block];

	pthread_mutex_lock(&f->lock);
	if (b->dev && !b->shared) {
		b->shared = true;
		b->copy = malloc(FAKE_BLOCK);
		MUST(b->copy);
		memcpy(b->copy, dev_at(f, b->dev), FAKE_BLOCK);
	}
	pthread_mutex_unlock(&f->lock);
}

void fake_fill(struct fake *f, uint32_t lo, uint32_t hi, uint32_t tag, bool strewn)
{
	pthread_mutex_lock(&f->lock);
	for (uint32_t i = lo; i < hi; i++) {
		struct fake_block *b = &f->blocks[i];

		if (!b->dev)
			b->dev = dev_take(f, strewn);
		fill(dev_at(f, b->dev), fake_word(i, tag));
	}
	if (hi * (uint64_t)FAKE_BLOCK > f->size)
		f->size = hi * (uint64_t)FAKE_BLOCK;
	pthread_mutex_unlock(&f->lock);
}

void fake_set_size(struct fake *f, uint64_t size)
{
	pthread_mutex_lock(&f->lock);
	f->size = size;
	pthread_mutex_unlock(&f->lock);
}

void fake_check(struct fake *f)
{
	pthread_mutex_lock(&f->lock);
	for (uint32_t dev = 1; dev < f->dev_blocks; dev++)
		if (f->poisoned[dev] && !is_poison(f, dev))
			f->late = true;
	for (uint32_t i = 0; i < f->blocks_max; i++)
		if (f->blocks[i].copy &&
		    memcmp(f->blocks[i].copy, dev_at(f, f->blocks[i].dev), FAKE_BLOCK) != 0)
			f->late = true;
	pthread_mutex_unlock(&f->lock);
	assert_false(f->late);
}

void fake_read(struct fake *f, uint64_t off, void *buf, uint64_t len)
{
	uint8_t *to = buf;

	pthread_mutex_lock(&f->lock);
	for (; len > 0; len--, off++, to++) {
		const struct fake_block *b = &f->blocks[off / FAKE_BLOCK];

		*to = b->dev ? dev_at(f, b->dev)[off % FAKE_BLOCK] : 0;
	}
	pthread_mutex_unlock(&f->lock);
}

/* ---- messages ---- */

static void say(struct fake_conn *c, const void *msg, size_t size)
{
	(void)!send(c->sock, msg, size, MSG_NOSIGNAL);
}

static void say_error(struct fake_conn *c, uint64_t id, int error)
{
	struct umbra_msg_error msg = { .msg = { sizeof(msg), UMBRA_MSG_ERROR, 0, id },
				       .error = (uint32_t)error };

	say(c, &msg, sizeof(msg));
}

static void say_hello(struct fake_conn *c, const struct umbra_msg_hello *hello)
{
	struct fake *f = c->fake;
	int error = f->hello_error;
	struct umbra_msg_welcome w = {
		.msg = { sizeof(w), UMBRA_MSG_WELCOME, 0, hello->msg.id },
		.version = UMBRA_DIRECT_VERSION,
		.rights = hello->rights & f->rights,
		.session = 1,
		.device_bytes = (uint64_t)f->dev_blocks * FAKE_BLOCK,
		.align_bytes = FAKE_BLOCK,
		.revoke_ms = 1000,
		.slots = UMBRA_SLOTS,
	};
	union {
		char bytes[CMSG_SPACE(2 * sizeof(int))];
		struct cmsghdr align;
	} control = { 0 };
	int fds[2] = { f->dev, f->slots_fd };
	struct iovec iov = { &w, sizeof(w) };
	struct msghdr msg = {
		.msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof(control)
	};
	struct cmsghdr *cmsg = CMSG_FIRSTHDR(&msg);

	if (error) {
		say_error(c, hello->msg.id, error);
		return;
	}
	cmsg->cmsg_level = SOL_SOCKET;
	cmsg->cmsg_type = SCM_RIGHTS;
	cmsg->cmsg_len = CMSG_LEN(sizeof(fds));
	memcpy(CMSG_DATA(cmsg), fds, sizeof(fds));
	(void)!sendmsg(c->sock, &msg, MSG_NOSIGNAL);
}

static void say_attached(struct fake_conn *c, const struct umbra_msg_attach *attach)
{
	struct fake *f = c->fake;
	struct umbra_msg_attached a = { .msg = { sizeof(a), UMBRA_MSG_ATTACHED, 0, attach->msg.id },
					.rights = f->rights & attach->token.bytes[0],
					.size_bytes = f->size };

	a.generation = f->generation;
	memcpy(&a.ino, attach->token.bytes + 8, sizeof(a.ino));
	f->attaches++;
	if (f->attach_error) {
		say_error(c, attach->msg.id, f->attach_error);
		return;
	}
	a.handle = FAKE_HANDLE;
	c->attached++;
	c->rights |= a.rights;
	a.slot = c->rights & UMBRA_DIRECT_WRITE ? FAKE_SLOT : UMBRA_SLOT_NONE;
	say(c, &a, sizeof(a));
}

static void make_storable(struct fake *f, uint64_t i)
{
	struct fake_block *b = &f->blocks[i];

	if (b->shared) {
		block_move(f, b);
	} else if (!b->dev) {
		b->dev = dev_take(f, false);
		memset(dev_at(f, b->dev), 0, FAKE_BLOCK);
	}
}

static void say_pieces(struct fake_conn *c, const struct umbra_msg_map *map)
{
	struct fake *f = c->fake;
	bool write = map->flags & UMBRA_MAP_WRITE;
	union {
		struct umbra_msg_pieces p;
		uint8_t bytes[UMBRA_MSG_MAX];
	} m = { .p = { .msg = { 0, UMBRA_MSG_PIECES, 0, map->msg.id }, .size_bytes = f->size } };
	uint64_t end = map->off + map->len, size_end = (f->size + FAKE_BLOCK - 1) / FAKE_BLOCK * FAKE_BLOCK;

	if (end > size_end)
		end = size_end;
	if (write && end > map->off + UMBRA_MAP_WRITE_MAX)
		end = map->off + UMBRA_MAP_WRITE_MAX;
	for (uint64_t at = map->off; at < end; at += FAKE_BLOCK) {
		const struct fake_block *b = &f->blocks[at / FAKE_BLOCK];
		struct umbra_piece *last = m.p.count ? &m.p.pieces[m.p.count - 1] : NULL,
				   p = { at, 0, FAKE_BLOCK, 0, 0 };

		if (write && !b->lost)
			make_storable(f, at / FAKE_BLOCK);
		p.dev_off = (uint64_t)b->dev * FAKE_BLOCK;
		p.flags = (b->dev ? 0 : UMBRA_PIECE_HOLE) | (b->shared ? UMBRA_PIECE_SHARED : 0) |
			  (b->lost ? UMBRA_PIECE_LOST :
			   write   ? UMBRA_PIECE_WRITE :
				     0);
		if (last && last->flags == p.flags && (!b->dev || last->dev_off + last->len == p.dev_off)) {
			last->len += FAKE_BLOCK;
			continue;
		}
		if (m.p.count == f->pieces_max)
			break;
		m.p.pieces[m.p.count++] = p;
	}
	m.p.msg.size = (uint32_t)(sizeof(m.p) + m.p.count * sizeof(m.p.pieces[0]));
	say(c, &m, m.p.msg.size);
}

static void on_map(struct fake_conn *c, const struct umbra_msg_map *map)
{
	struct fake *f = c->fake;
	int error = f->map_error ? f->map_error : map->flags & UMBRA_MAP_WRITE ? f->map_write_error : 0;

	if (!error && f->write_max && map->flags & UMBRA_MAP_WRITE && map->len > f->write_max * FAKE_BLOCK)
		error = ENOSPC;
	f->maps++;
	MUST(map->handle == FAKE_HANDLE && c->attached > 0);
	if (!(c->rights & (map->flags & UMBRA_MAP_WRITE ? UMBRA_DIRECT_WRITE : UMBRA_DIRECT_READ)))
		error = EACCES;
	MUST(map->off % FAKE_BLOCK == 0 && map->len % FAKE_BLOCK == 0 && map->len > 0);
	if (map->flags & UMBRA_MAP_RELEASE)
		f->releases++;
	if (f->deaf) {
		shutdown(c->sock, SHUT_RDWR);
	} else if (f->type_instead) {
		struct umbra_msg msg = { sizeof(msg), (uint16_t)f->type_instead, 0, map->msg.id };

		say(c, &msg, sizeof(msg));
	} else if (error) {
		say_error(c, map->msg.id, error);
	} else {
		say_pieces(c, map);
	}
}

static void on_bad(struct fake_conn *c, const struct umbra_msg_bad *bad)
{
	struct fake *f = c->fake;
	struct umbra_msg_lost lost = { .msg = { sizeof(lost), UMBRA_MSG_LOST, 0, bad->msg.id } };
	struct fake_block *b = &f->blocks[bad->off / FAKE_BLOCK];

	f->bads++;
	if (f->mends) {
		b->dev = dev_take(f, false);
		fill(dev_at(f, b->dev), fake_word((uint32_t)(bad->off / FAKE_BLOCK), 77));
	} else {
		b->lost = true;
		lost.lost_lines = 1u << 3;
	}
	say(c, &lost, sizeof(lost));
}

unsigned fake_opens(struct fake *f)
{
	DIR *dir = opendir("/proc/self/fd");
	struct dirent *entry;
	struct stat own, st;
	unsigned count = 0;

	MUST(dir && fstat(f->fd, &own) == 0);
	while ((entry = readdir(dir)))
		count += entry->d_name[0] != '.' && atoi(entry->d_name) != f->fd &&
			 fstat(atoi(entry->d_name), &st) == 0 && st.st_dev == own.st_dev &&
			 st.st_ino == own.st_ino;
	closedir(dir);
	return count;
}

union any_message {
	struct umbra_msg msg;
	struct umbra_msg_hello hello;
	struct umbra_msg_attach attach;
	struct umbra_msg_map map;
	struct umbra_msg_bad bad;
	struct umbra_msg_detach detach;
};

/* Under the lock. */
static void on_message(struct fake_conn *c, const union any_message *m)
{
	struct umbra_msg done = { sizeof(done), UMBRA_MSG_DONE, 0, m->msg.id };

	switch (m->msg.type) {
	case UMBRA_MSG_HELLO:
		say_hello(c, &m->hello);
		break;
	case UMBRA_MSG_ATTACH:
		say_attached(c, &m->attach);
		break;
	case UMBRA_MSG_DETACH:
		c->fake->open_then = fake_opens(c->fake);
		c->fake->detaches++;
		MUST(m->detach.handle == FAKE_HANDLE && c->attached > 0);
		if (--c->attached == 0)
			c->rights = 0;
		say(c, &done, sizeof(done));
		break;
	case UMBRA_MSG_MAP:
		on_map(c, &m->map);
		break;
	case UMBRA_MSG_BAD:
		on_bad(c, &m->bad);
		break;
	case UMBRA_MSG_ACK:
		MUST(c->acks > 0);
		c->acks--;
		pthread_cond_broadcast(&c->fake->changed);
		break;
	default:
		must(false, "a message of no known type");
	}
}

/* What comes while something changes waits, but for acknowledgements. */
static void *serve(void *arg)
{
	struct fake_conn *c = arg;
	struct fake *f = c->fake;
	union any_message waiting[UMBRA_REQUESTS_MAX], m;
	unsigned count = 0;
	ssize_t n;

	for (;;) {
		n = recv(c->sock, &m, sizeof(m), count > 0 ? MSG_DONTWAIT : 0);
		if (n < 0 && (errno == EAGAIN || errno == EINTR)) {
			struct timespec pause = { 0, 100000 };

			nanosleep(&pause, NULL);
		} else if (n <= 0) {
			break;
		} else {
			MUST((size_t)n == m.msg.size);
			if (m.msg.type != UMBRA_MSG_ACK) {
				MUST(count < UMBRA_REQUESTS_MAX);
				waiting[count++] = m;
			}
		}
		if (n > 0 && m.msg.type != UMBRA_MSG_ACK && f->delay_ms) {
			struct timespec pause = { 0, f->delay_ms * 1000000l };

			nanosleep(&pause, NULL);
		}
		pthread_mutex_lock(&f->lock);
		if (n > 0 && m.msg.type == UMBRA_MSG_ACK)
			on_message(c, &m);
		if (!f->changing) {
			for (unsigned i = 0; i < count; i++)
				on_message(c, &waiting[i]);
			count = 0;
		}
		pthread_mutex_unlock(&f->lock);
	}
	pthread_mutex_lock(&f->lock);
	c->open = false;
	c->acks = 0;
	c->attached = 0;
	c->rights = 0;
	pthread_cond_broadcast(&f->changed);
	pthread_mutex_unlock(&f->lock);
	return NULL;
}

static void conn_join(struct fake_conn *c)
{
	if (c->sock < 0)
		return;
	shutdown(c->sock, SHUT_RDWR);
	pthread_join(c->thread, NULL);
	close(c->sock);
	c->sock = -1;
}

static void *accept_all(void *arg)
{
	struct fake *f = arg;
	int sock;

	while ((sock = accept4(f->listener, NULL, NULL, SOCK_CLOEXEC)) >= 0) {
		struct fake_conn *c = NULL;

		f->connects++;
		for (unsigned i = 0; i < FAKE_CONNS && !c; i++) {
			pthread_mutex_lock(&f->lock);
			if (!f->conns[i].open)
				c = &f->conns[i];
			pthread_mutex_unlock(&f->lock);
		}
		MUST(c);
		conn_join(c);
		pthread_mutex_lock(&f->lock);
		c->fake = f;
		c->sock = sock;
		c->open = true;
		pthread_mutex_unlock(&f->lock);
		MUST(pthread_create(&c->thread, NULL, serve, c) == 0);
	}
	return NULL;
}

/* ---- changes ---- */

void fake_begin(struct fake *f, uint32_t lo, uint32_t hi, bool write_only)
{
	struct umbra_msg_revoke revoke = { .msg = { sizeof(revoke), UMBRA_MSG_REVOKE, 0, 7 },
					   .flags = write_only ? UMBRA_REVOKE_WRITE : 0,
					   .off = lo * (uint64_t)FAKE_BLOCK,
					   .len = (hi - lo) * (uint64_t)FAKE_BLOCK };
	struct timespec limit;

	clock_gettime(CLOCK_REALTIME, &limit);
	limit.tv_sec += 60;
	pthread_mutex_lock(&f->lock);
	while (f->changing)
		MUST(pthread_cond_timedwait(&f->changed, &f->lock, &limit) == 0);
	f->changing = true;
	for (unsigned i = 0; i < FAKE_CONNS; i++)
		if (f->conns[i].open && f->conns[i].attached) {
			f->conns[i].acks++;
			revoke.handle = FAKE_HANDLE;
			say(&f->conns[i], &revoke, sizeof(revoke));
		}
	for (unsigned i = 0; i < FAKE_CONNS; i++)
		while (f->conns[i].acks > 0)
			MUST(pthread_cond_timedwait(&f->changed, &f->lock, &limit) == 0);
	pthread_mutex_unlock(&f->lock);
}

void fake_end(struct fake *f)
{
	pthread_mutex_lock(&f->lock);
	f->changing = false;
	pthread_cond_broadcast(&f->changed);
	pthread_mutex_unlock(&f->lock);
}

/* ---- the kernel ---- */

int __real_ioctl(int fd, unsigned long request, ...);
int __wrap_ioctl(int fd, unsigned long request, ...);
ssize_t __wrap_pread64(int fd, void *buf, size_t size, off_t off);
ssize_t __wrap_pwrite64(int fd, const void *buf, size_t size, off_t off);

int __real_fstat64(int fd, struct stat *st);
int __wrap_fstat64(int fd, struct stat *st);

static bool fails(struct fake *f, unsigned long request)
{
	if (f->fails != request || f->fails_times == 0)
		return false;
	f->fails_times--;
	errno = f->fails_with;
	return true;
}

int __wrap_fstat64(int fd, struct stat *st)
{
	return the_fake && fails(the_fake, FAKE_FSTAT) ? -1 : __real_fstat64(fd, st);
}

static int say_info(const struct fake *f, struct umbra_info *info)
{
	memset(info, 0, sizeof(*info));
	info->uuid[0] = (uint8_t)f->pool;
	return 0;
}

int __wrap_ioctl(int fd, unsigned long request, ...)
{
	struct fake *f = the_fake;
	va_list args;
	void *arg;

	va_start(args, request);
	arg = va_arg(args, void *);
	va_end(args);
	if (!f || f->no_ioctl)
		return __real_ioctl(fd, request, arg);
	if (fake_fd_is_dead(fd)) {
		errno = ENOTCONN;
		return -1;
	}
	if (fails(f, request))
		return -1;
	if (request == UMBRA_IOC_INFO)
		return say_info(f, arg);
	if (request == FS_IOC_GETVERSION) {
		*(long *)arg = (long)f->generation;
		return 0;
	}
	if (request == UMBRA_IOC_DIRECT) {
		struct umbra_direct direct = { .version = UMBRA_DIRECT_VERSION, .rights = f->rights };

		strcpy(direct.socket, f->socket);
		memcpy(arg, &direct, sizeof(direct));
		return 0;
	}
	if (request == UMBRA_IOC_TOKEN || request == UMBRA_IOC_MAP_TOKEN) {
		int mode = fcntl(fd, F_GETFL) & O_ACCMODE;
		struct stat st = { 0 };
		uint64_t ino;

		if (fstat(fd, &st))
			return -1;
		ino = st.st_ino;
		memset(arg, mode == O_RDWR ? 3 : mode == O_RDONLY ? 1 : 2, sizeof(struct umbra_token));
		memcpy((uint8_t *)arg + 8, &ino, sizeof(ino));
		return 0;
	}
	return __real_ioctl(fd, request, arg);
}

ssize_t __wrap_pread64(int fd, void *buf, size_t size, off_t off)
{
	struct fake *f = the_fake;
	uint64_t n;

	if (fake_fd_is_dead(fd)) {
		errno = ENOTCONN;
		return -1;
	}
	if ((fcntl(fd, F_GETFL) & O_ACCMODE) == O_WRONLY) {
		errno = EBADF;
		return -1;
	}
	if (off < 0) {
		errno = EINVAL;
		return -1;
	}
	if (fails(f, FAKE_PREAD))
		return -1;
	f->kernel_reads++;
	pthread_mutex_lock(&f->lock);
	n = (uint64_t)off >= f->size ? 0 : f->size - (uint64_t)off;
	n = n < size ? n : size;
	for (uint64_t at = (uint64_t)off / FAKE_BLOCK; n > 0 && at <= ((uint64_t)off + n - 1) / FAKE_BLOCK;
	     at++)
		if (f->blocks[at].lost)
			n = at * FAKE_BLOCK > (uint64_t)off ? at * FAKE_BLOCK - (uint64_t)off : UINT64_MAX;
	pthread_mutex_unlock(&f->lock);
	if (n == UINT64_MAX) {
		errno = EIO;
		return -1;
	}
	fake_read(f, (uint64_t)off, buf, n);
	return (ssize_t)n;
}

/* One at a time with changes: what is shared and what is not there is replaced. */
ssize_t __wrap_pwrite64(int fd, const void *buf, size_t size, off_t off)
{
	struct fake *f = the_fake;
	uint64_t end = (uint64_t)off + size;

	if (fake_fd_is_dead(fd)) {
		errno = ENOTCONN;
		return -1;
	}
	if ((fcntl(fd, F_GETFL) & O_ACCMODE) == O_RDONLY) {
		errno = EBADF;
		return -1;
	}
	if (off < 0) {
		errno = EINVAL;
		return -1;
	}
	if (fails(f, FAKE_PWRITE))
		return -1;
	f->kernel_writes++;
	MUST(end <= (uint64_t)f->blocks_max * FAKE_BLOCK);
	fake_begin(f, (uint32_t)(off / FAKE_BLOCK), (uint32_t)((end + FAKE_BLOCK - 1) / FAKE_BLOCK), false);
	pthread_mutex_lock(&f->lock);
	for (uint64_t at = (uint64_t)off; at < end; at++) {
		struct fake_block *b = &f->blocks[at / FAKE_BLOCK];

		if (b->shared || !b->dev)
			make_storable(f, at / FAKE_BLOCK);
		dev_at(f, b->dev)[at % FAKE_BLOCK] = ((const uint8_t *)buf)[at - (uint64_t)off];
	}
	if (end > f->size)
		f->size = end;
	pthread_mutex_unlock(&f->lock);
	fake_end(f);
	return (ssize_t)size;
}

/* ---- its life ---- */

static void *memory(int *fd, const char *name, uint64_t len)
{
	void *at;

	*fd = memfd_create(name, MFD_CLOEXEC);
	MUST(*fd >= 0 && ftruncate(*fd, (off_t)len) == 0);
	at = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_SHARED, *fd, 0);
	MUST(at != MAP_FAILED);
	return at;
}

bool fake_is_attached(struct fake *f)
{
	bool is = false;

	pthread_mutex_lock(&f->lock);
	for (unsigned i = 0; i < FAKE_CONNS; i++)
		is = is || (f->conns[i].open && f->conns[i].attached > 0);
	pthread_mutex_unlock(&f->lock);
	return is;
}

void fake_up(struct fake *f)
{
	struct sockaddr_un addr = { .sun_family = AF_UNIX };

	strcpy(addr.sun_path, f->socket);
	unlink(f->socket);
	f->listener = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	MUST(f->listener >= 0 && bind(f->listener, (struct sockaddr *)&addr, sizeof(addr)) == 0 &&
	     listen(f->listener, 64) == 0);
	MUST(pthread_create(&f->acceptor, NULL, accept_all, f) == 0);
}

void fake_down(struct fake *f)
{
	shutdown(f->listener, SHUT_RDWR);
	pthread_join(f->acceptor, NULL);
	close(f->listener);
	unlink(f->socket);
	for (unsigned i = 0; i < FAKE_CONNS; i++)
		conn_join(&f->conns[i]);
}

struct fake *fake_new(uint32_t dev_blocks, uint32_t blocks_max)
{
	struct fake *f = calloc(1, sizeof(*f));
	const char *dir = getenv("TMPDIR");

	MUST(f);
	pthread_mutex_init(&f->lock, NULL);
	pthread_cond_init(&f->changed, NULL);
	snprintf(f->path, sizeof(f->path), "%s/umbra-fake.XXXXXX", dir && strlen(dir) < 60 ? dir : "/tmp");
	f->fd = mkstemp(f->path);
	MUST(f->fd >= 0);
	snprintf(f->socket, sizeof(f->socket), "%s.sock", f->path);
	f->dev_blocks = dev_blocks;
	f->blocks_max = blocks_max;
	f->dev_next = 1;
	f->base = memory(&f->dev, "device", (uint64_t)dev_blocks * FAKE_BLOCK);
	f->slots = memory(&f->slots_fd, "slots", UMBRA_SLOTS * sizeof(struct umbra_slot));
	f->used = calloc(dev_blocks, 1);
	f->poisoned = calloc(dev_blocks, 1);
	f->blocks = calloc(blocks_max, sizeof(f->blocks[0]));
	MUST(f->used && f->poisoned && f->blocks);
	f->rights = UMBRA_DIRECT_READ | UMBRA_DIRECT_WRITE;
	f->generation = 1;
	f->pool = 1;
	f->pieces_max = UMBRA_PIECES_MAX;
	for (unsigned i = 0; i < FAKE_CONNS; i++)
		f->conns[i].sock = -1;
	fake_up(f);
	the_fake = f;
	return f;
}

void fake_free(struct fake *f)
{
	fake_down(f);
	the_fake = NULL;
	munmap(f->base, (uint64_t)f->dev_blocks * FAKE_BLOCK);
	munmap(f->slots, UMBRA_SLOTS * sizeof(struct umbra_slot));
	close(f->dev);
	close(f->slots_fd);
	close(f->fd);
	unlink(f->path);
	for (uint32_t i = 0; i < f->blocks_max; i++)
		free(f->blocks[i].copy);
	free(f->blocks);
	free(f->used);
	free(f->poisoned);
	free(f);
}

int fake_open(struct fake *f, int flags)
{
	int fd = open(f->path, flags | O_CLOEXEC);

	MUST(fd >= 0);
	return fd;
}
