/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A daemon under a keeper that starts in another way than most: loaded into it by LD_PRELOAD (keeper.sh).
 *
 * START_WAITS is a file: while it is there a daemon waits before its first instruction, and says so by another one, with '.there' behind its name.
 * START_CUTS is one while which is there the answer to a request that sets the size of a file waits; with '.there' too.
 * '.said' gets a line with size and timeout of each such answer that goes out.
 * START_POISONS is the same for one that says that memory is bad.
 * START_LEAVES is one while which is there a daemon waits before it makes room for another one; with '.there' too.
 * START_ALONE: what a daemon says before it makes room for another one does not arrive, as if its keeper had been killed just then.
 * START_INIT is what is done to the kernel's first request: 'old' takes away that it can send requests again, 'long' makes it longer than any is.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/fuse.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#include <umbra/ioctl.h>

#define STEP_NS 10000000
#define AGAIN_UNIQUE (1ull << 63) /* the kernel's mark of a request that comes again */
#define RESENDS_2 (1u << 7)       /* in the upper half of the features */
#define LONG_BYTES 400u

#define SAYS_UPGRADE 3 /* daemon/keeper_wire.h */

static const char *init_how, *cuts, *poisons;

/* As the kernel has it: system headers may have an older form. */
struct init_in {
	uint32_t major, minor, max_readahead, flags, flags2;
};

static _Atomic uint64_t cut_unique; /* of the request whose answer waits; 0: none */

static void wait_while_there(const char *file)
{
	const struct timespec step = { .tv_nsec = STEP_NS };
	char there[4096];

	if (!file || access(file, F_OK))
		return;
	snprintf(there, sizeof(there), "%s.there", file);
	close(open(there, O_WRONLY | O_CREAT | O_CLOEXEC, 0600));
	while (access(file, F_OK) == 0)
		nanosleep(&step, NULL);
}

__attribute__((constructor)) static void begin(void)
{
	if (!getenv("UMBRAFS_KEEPER"))
		return;
	init_how = getenv("START_INIT");
	cuts = getenv("START_CUTS");
	poisons = getenv("START_POISONS");
	wait_while_there(getenv("START_WAITS"));
}

static void cut_note(const char *bytes, ssize_t size)
{
	const struct fuse_in_header *in = (const void *)bytes;
	const struct fuse_setattr_in *set = (const void *)(in + 1);
	const struct fuse_ioctl_in *ioctl = (const void *)(in + 1);

	if (cuts && size >= (ssize_t)(sizeof(*in) + sizeof(*set)) && in->len == size &&
	    in->opcode == FUSE_SETATTR && set->valid & FATTR_SIZE)
		cut_unique = in->unique & ~AGAIN_UNIQUE;
	if (poisons && size >= (ssize_t)(sizeof(*in) + sizeof(*ioctl)) && in->len == size &&
	    in->opcode == FUSE_IOCTL && ioctl->cmd == UMBRA_IOC_POISON)
		cut_unique = in->unique & ~AGAIN_UNIQUE;
}

static ssize_t init_change(char *bytes, ssize_t size, size_t room)
{
	struct fuse_in_header *in = (void *)bytes;
	struct init_in *init = (void *)(in + 1);

	if (size < (ssize_t)(sizeof(*in) + sizeof(*init)) || in->len != size || in->opcode != FUSE_INIT)
		return size;
	if (strcmp(init_how, "old") == 0)
		init->flags2 &= ~RESENDS_2;
	if (strcmp(init_how, "long") == 0 && room >= LONG_BYTES) {
		memset(bytes + size, 0, LONG_BYTES - (size_t)size);
		in->len = LONG_BYTES;
		size = LONG_BYTES;
	}
	return size;
}

ssize_t read(int fd, void *bytes, size_t size)
{
	static ssize_t (*real)(int, void *, size_t);
	ssize_t n;

	if (!real)
		real = dlsym(RTLD_NEXT, "read");
	n = real(fd, bytes, size);
	cut_note(bytes, n);
	return n > 0 && init_how ? init_change(bytes, n, size) : n;
}

static void say(const struct fuse_attr_out *attr)
{
	char name[4096];
	FILE *to;

	snprintf(name, sizeof(name), "%s.said", cuts);
	to = fopen(name, "ae");
	if (!to)
		return;
	fprintf(to, "%llu %llu.%09u\n", (unsigned long long)attr->attr.size,
		(unsigned long long)attr->attr_valid, attr->attr_valid_nsec);
	fclose(to);
}

ssize_t write(int fd, const void *bytes, size_t size)
{
	static ssize_t (*real)(int, const void *, size_t);
	const struct fuse_out_header *out = bytes;

	if (!real)
		real = dlsym(RTLD_NEXT, "write");
	if (cut_unique && size >= sizeof(*out) && (out->unique & ~AGAIN_UNIQUE) == cut_unique) {
		cut_unique = 0;
		wait_while_there(cuts ? cuts : poisons);
		if (cuts && size >= sizeof(*out) + sizeof(struct fuse_attr_out))
			say((const void *)(out + 1));
	}
	return real(fd, bytes, size);
}

ssize_t sendmsg(int fd, const struct msghdr *msg, int flags)
{
	static ssize_t (*real)(int, const struct msghdr *, int);
	uint32_t what = 0;

	if (!real)
		real = dlsym(RTLD_NEXT, "sendmsg");
	if (msg->msg_iovlen > 0 && msg->msg_iov[0].iov_len >= sizeof(what))
		memcpy(&what, msg->msg_iov[0].iov_base, sizeof(what));
	if (what == SAYS_UPGRADE)
		wait_while_there(getenv("START_LEAVES"));
	if (what == SAYS_UPGRADE && getenv("START_ALONE")) {
		errno = EPIPE;
		return -1;
	}
	return real(fd, msg, flags);
}
