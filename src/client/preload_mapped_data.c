/* SPDX-License-Identifier: BSD-3-Clause */
/* Data calls, messages and streams whose memory lies in mappings of the library's: with a copy of that memory (user_memory.h). */
#include <errno.h>
#include <limits.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include "client/fds.h"
#include "client/next.h"
#include "client/preload_parts.h"
#include "client/user_memory.h"

#define STREAM_BYTES (64u << 10) /* at a time */

/* Macros too. */
#undef fread_unlocked
#undef fwrite_unlocked

NEXT(recv, ssize_t, (int, void *, size_t, int))
NEXT(recvfrom, ssize_t, (int, void *, size_t, int, struct sockaddr *, socklen_t *))
NEXT(recvmsg, ssize_t, (int, struct msghdr *, int))
NEXT(send, ssize_t, (int, const void *, size_t, int))
NEXT(sendto, ssize_t, (int, const void *, size_t, int, const struct sockaddr *, socklen_t))
NEXT(sendmsg, ssize_t, (int, const struct msghdr *, int))
NEXT(fread, size_t, (void *, size_t, size_t, FILE *))
NEXT(fread_unlocked, size_t, (void *, size_t, size_t, FILE *))
NEXT(fwrite, size_t, (const void *, size_t, size_t, FILE *))
NEXT(fwrite_unlocked, size_t, (const void *, size_t, size_t, FILE *))
NEXT(fputs, int, (const char *, FILE *))
NEXT(puts, int, (const char *))
NEXT(__fread_chk, size_t, (void *, size_t, size_t, size_t, FILE *))
NEXT(__fread_unlocked_chk, size_t, (void *, size_t, size_t, size_t, FILE *))
NEXT(__recv_chk, ssize_t, (int, void *, size_t, size_t, int))
NEXT(__recvfrom_chk, ssize_t, (int, void *, size_t, size_t, int, struct sockaddr *, socklen_t *))

/* ---- files, pipes ... ---- */

struct fd_call {
	int fd, flags;
	off_t off; /* -1: of the description */
	bool store;
};

/* What is read later is there already, and no read waits for it. */
static bool is_file(int fd)
{
	struct stat st;

	return fstat(fd, &st) == 0 && (S_ISREG(st.st_mode) || S_ISBLK(st.st_mode));
}

/* Of memory that is no mapping: these are our own calls again. */
static ssize_t fd_part(void *arg, void *buf, size_t len, size_t done)
{
	const struct fd_call *c = arg;
	struct iovec part = { buf, len };
	off_t off = c->off;

	if (done > 0 && !c->store && !is_file(c->fd))
		return 0;
	if (off >= 0 && __builtin_add_overflow(off, (off_t)done, &off)) {
		errno = EINVAL;
		return -1;
	}
	if (c->flags)
		return c->store ? pwritev2(c->fd, &part, 1, off, c->flags) :
				  preadv2(c->fd, &part, 1, off, c->flags);
	if (off < 0)
		return c->store ? write(c->fd, buf, len) : read(c->fd, buf, len);
	return c->store ? pwrite(c->fd, buf, len, off) : pread(c->fd, buf, len, off);
}

bool mapped_one(int fd, void *buf, size_t size, off_t off, bool store, ssize_t *rc)
{
	struct iovec part = { buf, size < PARTS_BYTES_MAX ? size : PARTS_BYTES_MAX };
	struct fd_call c = { .fd = fd, .off = off, .store = store };

	if (!user_memory_at(buf, size) || !fds_is_quiet())
		return false;
	*rc = user_memory_call(&part, 1, !store, false, fd_part, &c);
	return true;
}

/* Whether any part of the list is a mapping. No malloc() for those that are not: a handler may come in between, and touch a mapping. */
static bool list_is_mapped(const struct iovec *iov, size_t count)
{
	struct iovec some[PARTS_MAX];

	for (size_t n; count > 0; iov += n, count -= n) {
		n = count < PARTS_MAX ? count : PARTS_MAX;
		if (!user_memory_get(some, iov, n * sizeof(*some)))
			return false;
		if (user_memory_in(some, (int)n))
			return true;
	}
	return false;
}

/* A copy of the list, if any part of it is a mapping; to be freed. */
static struct iovec *mapped_list(const struct iovec *iov, size_t count)
{
	struct iovec *parts;

	if (!user_memory_exists() || count == 0 || count > IOV_MAX || !fds_is_quiet() ||
	    !list_is_mapped(iov, count))
		return NULL;
	parts = malloc(count * sizeof(*parts));
	if (parts &&
	    (!user_memory_get(parts, iov, count * sizeof(*parts)) || !user_memory_in(parts, (int)count))) {
		free(parts);
		parts = NULL;
	}
	return parts;
}

bool mapped_parts(int fd, const struct iovec *iov, int count, off_t off, int flags, bool store, ssize_t *rc)
{
	struct fd_call c = { .fd = fd, .flags = flags, .off = off, .store = store };
	struct iovec *parts = count > 0 ? mapped_list(iov, (size_t)count) : NULL;

	if (!parts)
		return false;
	*rc = user_memory_call(parts, count, !store, false, fd_part, &c);
	free(parts);
	return true;
}

/* ---- messages ---- */

struct message_call {
	int fd, flags;
	bool send;
	struct msghdr *msg;
};

static ssize_t message_part(void *arg, void *buf, size_t len, size_t done)
{
	struct message_call *c = arg;
	struct iovec part = { buf, len };

	(void)done;
	c->msg->msg_iov = &part;
	c->msg->msg_iovlen = 1;
	return c->send ? next_of_sendmsg()(c->fd, c->msg, c->flags) :
			 next_of_recvmsg()(c->fd, c->msg, c->flags);
}

/* Names and the rest: in place at least. */
static void others_touch(const struct msghdr *msg, bool store)
{
	if (user_memory_at(msg->msg_name, msg->msg_namelen))
		(void)!user_memory_touch(msg->msg_name, msg->msg_namelen, store);
	if (user_memory_at(msg->msg_control, msg->msg_controllen))
		(void)!user_memory_touch(msg->msg_control, msg->msg_controllen, store);
}

/* Changes what is not the list of parts. False: none is in a mapping. */
static bool mapped_message(int fd, struct msghdr *msg, int flags, bool send, ssize_t *rc)
{
	struct msghdr copy = *msg;
	struct message_call c = { .fd = fd, .flags = flags, .send = send, .msg = &copy };
	struct iovec *parts = mapped_list(msg->msg_iov, msg->msg_iovlen);

	if (user_memory_exists() && fds_is_quiet())
		others_touch(msg, !send);
	if (!parts)
		return false;
	*rc = user_memory_call(parts, (int)msg->msg_iovlen, !send, true, message_part, &c);
	free(parts);
	if (!send && *rc >= 0) {
		msg->msg_namelen = copy.msg_namelen;
		msg->msg_controllen = copy.msg_controllen;
		msg->msg_flags = copy.msg_flags;
	}
	return true;
}

/* False: nothing of it can be a mapping, or the kernel says what is wrong with it. */
static bool message_get(struct msghdr *copy, const struct msghdr *msg)
{
	return user_memory_exists() && fds_is_quiet() && user_memory_get(copy, msg, sizeof(*copy));
}

exported ssize_t recvmsg(int fd, struct msghdr *msg, int flags)
{
	struct msghdr copy;
	ssize_t rc;

	if (message_get(&copy, msg) && mapped_message(fd, &copy, flags, false, &rc)) {
		if (rc >= 0) {
			msg->msg_namelen = copy.msg_namelen;
			msg->msg_controllen = copy.msg_controllen;
			msg->msg_flags = copy.msg_flags;
		}
		return rc;
	}
	return next_of_recvmsg()(fd, msg, flags);
}

exported ssize_t sendmsg(int fd, const struct msghdr *msg, int flags)
{
	struct msghdr copy;
	ssize_t rc;

	if (message_get(&copy, msg) && mapped_message(fd, &copy, flags, true, &rc))
		return rc;
	return next_of_sendmsg()(fd, msg, flags);
}

/* One buffer, and a name perhaps. */
static bool mapped_buffer(int fd, void *buf, size_t size, int flags, struct sockaddr *name, socklen_t *len,
			  bool send, ssize_t *rc)
{
	struct iovec part = { buf, size };
	struct msghdr msg = { .msg_iov = &part, .msg_iovlen = 1, .msg_name = name };

	if (!user_memory_at(buf, size) || !fds_is_quiet())
		return false;
	if (name && len && !user_memory_get(&msg.msg_namelen, len, sizeof(*len)))
		return false;
	if (!mapped_message(fd, &msg, flags, send, rc))
		return false;
	if (!send && *rc >= 0 && name && len)
		*len = msg.msg_namelen;
	return true;
}

exported ssize_t recv(int fd, void *buf, size_t size, int flags)
{
	ssize_t rc;

	return mapped_buffer(fd, buf, size, flags, NULL, NULL, false, &rc) ?
		       rc :
		       next_of_recv()(fd, buf, size, flags);
}

exported ssize_t recvfrom(int fd, void *buf, size_t size, int flags, struct sockaddr *name, socklen_t *len)
{
	ssize_t rc;

	return mapped_buffer(fd, buf, size, flags, name, len, false, &rc) ?
		       rc :
		       next_of_recvfrom()(fd, buf, size, flags, name, len);
}

exported ssize_t send(int fd, const void *buf, size_t size, int flags)
{
	ssize_t rc;

	return mapped_buffer(fd, (void *)(uintptr_t)buf, size, flags, NULL, NULL, true, &rc) ?
		       rc :
		       next_of_send()(fd, buf, size, flags);
}

exported ssize_t sendto(int fd, const void *buf, size_t size, int flags, const struct sockaddr *name,
			socklen_t len)
{
	ssize_t rc;

	return mapped_buffer(fd, (void *)(uintptr_t)buf, size, flags, (struct sockaddr *)(uintptr_t)name,
			     &len, true, &rc) ?
		       rc :
		       next_of_sendto()(fd, buf, size, flags, name, len);
}

exported ssize_t __recv_chk(int fd, void *buf, size_t size, size_t room, int flags);
exported ssize_t __recvfrom_chk(int fd, void *buf, size_t size, size_t room, int flags, struct sockaddr *name,
				socklen_t *len);

ssize_t __recv_chk(int fd, void *buf, size_t size, size_t room, int flags)
{
	return size <= room ? recv(fd, buf, size, flags) : next_of___recv_chk()(fd, buf, size, room, flags);
}

ssize_t __recvfrom_chk(int fd, void *buf, size_t size, size_t room, int flags, struct sockaddr *name,
		       socklen_t *len)
{
	return size <= room ? recvfrom(fd, buf, size, flags, name, len) :
			      next_of___recvfrom_chk()(fd, buf, size, room, flags, name, len);
}

/* ---- streams: what is more than their buffer goes to the kernel from where it is ---- */

typedef size_t (*stream_read_fn)(void *, size_t, size_t, FILE *);
typedef size_t (*stream_write_fn)(const void *, size_t, size_t, FILE *);

static bool is_mapped(const void *at, size_t size, size_t count, size_t *len)
{
	return user_memory_exists() && !__builtin_mul_overflow(size, count, len) &&
	       user_memory_at(at, *len) && fds_is_quiet();
}

static size_t stream_read(uint8_t *at, size_t len, FILE *stream, stream_read_fn next)
{
	uint8_t *copy = malloc(STREAM_BYTES);
	size_t done = 0, n, got;

	while (copy && done < len) {
		n = len - done < STREAM_BYTES ? len - done : STREAM_BYTES;
		got = next(copy, 1, n, stream);
		if (!user_memory_put(at + done, copy, got)) {
			errno = EFAULT;
			break;
		}
		done += got;
		if (got < n)
			break;
	}
	free(copy);
	return done;
}

static size_t stream_write(const uint8_t *at, size_t len, FILE *stream, stream_write_fn next)
{
	uint8_t *copy = malloc(STREAM_BYTES);
	size_t done = 0, n, put;

	while (copy && done < len) {
		n = len - done < STREAM_BYTES ? len - done : STREAM_BYTES;
		if (!user_memory_get(copy, at + done, n)) {
			errno = EFAULT;
			break;
		}
		put = next(copy, 1, n, stream);
		done += put;
		if (put < n)
			break;
	}
	free(copy);
	return done;
}

exported size_t fread(void *at, size_t size, size_t count, FILE *stream)
{
	size_t len, done;

	if (!is_mapped(at, size, count, &len))
		return next_of_fread()(at, size, count, stream);
	flockfile(stream);
	done = stream_read(at, len, stream, next_of_fread()) / size;
	funlockfile(stream);
	return done;
}

exported size_t fread_unlocked(void *at, size_t size, size_t count, FILE *stream)
{
	size_t len;

	return is_mapped(at, size, count, &len) ?
		       stream_read(at, len, stream, next_of_fread_unlocked()) / size :
		       next_of_fread_unlocked()(at, size, count, stream);
}

exported size_t fwrite(const void *at, size_t size, size_t count, FILE *stream)
{
	size_t len, done;

	if (!is_mapped(at, size, count, &len))
		return next_of_fwrite()(at, size, count, stream);
	flockfile(stream);
	done = stream_write(at, len, stream, next_of_fwrite()) / size;
	funlockfile(stream);
	return done;
}

exported size_t fwrite_unlocked(const void *at, size_t size, size_t count, FILE *stream)
{
	size_t len;

	return is_mapped(at, size, count, &len) ?
		       stream_write(at, len, stream, next_of_fwrite_unlocked()) / size :
		       next_of_fwrite_unlocked()(at, size, count, stream);
}

exported size_t __fread_chk(void *at, size_t room, size_t size, size_t count, FILE *stream);
exported size_t __fread_unlocked_chk(void *at, size_t room, size_t size, size_t count, FILE *stream);

size_t __fread_chk(void *at, size_t room, size_t size, size_t count, FILE *stream)
{
	size_t len;

	return is_mapped(at, size, count, &len) && len <= room ?
		       fread(at, size, count, stream) :
		       next_of___fread_chk()(at, room, size, count, stream);
}

size_t __fread_unlocked_chk(void *at, size_t room, size_t size, size_t count, FILE *stream)
{
	size_t len;

	return is_mapped(at, size, count, &len) && len <= room ?
		       fread_unlocked(at, size, count, stream) :
		       next_of___fread_unlocked_chk()(at, room, size, count, stream);
}

exported int fputs(const char *text, FILE *stream)
{
	size_t len;

	if (!user_memory_at(text, 1) || !fds_is_quiet())
		return next_of_fputs()(text, stream);
	len = strlen(text);
	return fwrite(text, 1, len, stream) == len ? 1 : EOF;
}

exported int puts(const char *text)
{
	int rc;

	if (!user_memory_at(text, 1) || !fds_is_quiet())
		return next_of_puts()(text);
	flockfile(stdout);
	rc = fputs(text, stdout) < 0 || putc_unlocked('\n', stdout) < 0 ? EOF : 1;
	funlockfile(stdout);
	return rc;
}
