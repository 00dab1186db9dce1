/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A process with direct mappings in the guest of tests/vm, by the bare protocol: what the kernel does with descriptors and mappings of a true
 * device-DAX node.
 *
 *   direct_probe align FILE BYTES   the device is a character device, WELCOME says BYTES, and the kernel maps by that
 *   direct_probe store FILE TEXT    TEXT is stored at the beginning of FILE
 *   direct_probe hold FILE          maps FILE, closes the descriptors, prints 'mapped', stays until it is killed
 *   direct_probe child FILE         the same by a child; the process itself ends without a word
 */
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <umbra/direct.h>

#define BLOCK 4096u

static int sock, device = -1;
static struct umbra_msg_welcome welcome;
static struct umbra_slot *slots;

static struct umbra_msg head(enum umbra_msg_type type, size_t size)
{
	return (struct umbra_msg){ .size = (uint32_t)size, .type = (uint16_t)type, .id = 1 };
}

/* The answer, with two descriptors if fds is given. False: it is BUSY. */
static bool ask_once(const void *in, size_t in_size, void *out, size_t out_size, enum umbra_msg_type type,
		     int *fds)
{
	union {
		struct cmsghdr header;
		char bytes[CMSG_SPACE(2 * sizeof(int))];
	} control;
	struct iovec iov = { out, out_size };
	struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1 };

	if (fds) {
		msg.msg_control = &control;
		msg.msg_controllen = sizeof(control);
	}
	if (send(sock, in, in_size, 0) != (ssize_t)in_size || recvmsg(sock, &msg, 0) <= 0)
		err(1, "the daemon");
	if (((struct umbra_msg *)out)->type == UMBRA_MSG_ERROR &&
	    ((struct umbra_msg_error *)out)->error == EBUSY)
		return false;
	if (((struct umbra_msg *)out)->type != type)
		errx(1, "message %u is answered by %u", ((const struct umbra_msg *)in)->type,
		     ((struct umbra_msg *)out)->type);
	if (fds && msg.msg_controllen < CMSG_LEN(2 * sizeof(int)))
		errx(1, "no descriptors");
	if (fds)
		memcpy(fds, CMSG_DATA(&control.header), 2 * sizeof(int));
	return true;
}

/* Whoever has just closed the file may still count: the kernel tells the daemon of it later. */
static void ask(const void *in, size_t in_size, void *out, size_t out_size, enum umbra_msg_type type,
		int *fds)
{
	for (unsigned tries = 0; !ask_once(in, in_size, out, out_size, type, fds); tries++) {
		if (tries == 6000)
			errx(1, "message %u: others have the file open",
			     ((const struct umbra_msg *)in)->type);
		usleep(10000);
	}
}

static void connect_to(int fd)
{
	struct umbra_msg_hello hello = { head(UMBRA_MSG_HELLO, sizeof(hello)), UMBRA_DIRECT_VERSION,
					 UMBRA_DIRECT_READ | UMBRA_DIRECT_WRITE };
	struct sockaddr_un addr = { .sun_family = AF_UNIX };
	struct umbra_direct direct;
	int fds[2];

	if (ioctl(fd, UMBRA_IOC_DIRECT, &direct))
		err(1, "UMBRA_IOC_DIRECT");
	memcpy(addr.sun_path, direct.socket, sizeof(addr.sun_path));
	sock = socket(AF_UNIX, SOCK_SEQPACKET, 0);
	if (sock < 0 || connect(sock, (struct sockaddr *)&addr, sizeof(addr)))
		err(1, "%s", addr.sun_path);
	ask(&hello, sizeof(hello), &welcome, sizeof(welcome), UMBRA_MSG_WELCOME, fds);
	device = fds[0];
	slots = mmap(NULL, UMBRA_SLOTS * sizeof(*slots), PROT_READ | PROT_WRITE, MAP_SHARED, fds[1], 0);
	if (slots == MAP_FAILED)
		err(1, "slots");
	close(fds[1]);
}

/* The first block of the file, to be stored to. */
static char *map_first(int fd)
{
	struct umbra_msg_attach attach = { .msg = head(UMBRA_MSG_ATTACH, sizeof(attach)) };
	struct umbra_msg_map map = { .msg = head(UMBRA_MSG_MAP, sizeof(map)), .flags = UMBRA_MAP_WRITE };
	struct umbra_msg_attached attached;
	union {
		struct umbra_msg_pieces msg;
		char bytes[UMBRA_MSG_MAX];
	} pieces;
	const struct umbra_piece *first = pieces.msg.pieces;
	char *base;

	if (ioctl(fd, UMBRA_IOC_TOKEN, &attach.token))
		err(1, "UMBRA_IOC_TOKEN");
	ask(&attach, sizeof(attach), &attached, sizeof(attached), UMBRA_MSG_ATTACHED, NULL);
	map.handle = attached.handle;
	map.len = BLOCK;
	ask(&map, sizeof(map), &pieces, sizeof(pieces), UMBRA_MSG_PIECES, NULL);
	if (pieces.msg.count != 1 || first->flags != UMBRA_PIECE_WRITE || first->len != BLOCK)
		errx(1, "%u pieces, flags %x", pieces.msg.count, first->flags);
	/* Whole, as a piece may not be where the device can be mapped from. */
	base = mmap(NULL, welcome.device_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, device, 0);
	if (base == MAP_FAILED)
		err(1, "the device, of %llu bytes", (unsigned long long)welcome.device_bytes);
	slots[attached.slot].stored = 1;
	return base + first->dev_off;
}

static void align_check(uint64_t bytes)
{
	struct stat st;
	void *at;

	if (fstat(device, &st) || !S_ISCHR(st.st_mode))
		errx(1, "the descriptor is none of a character device");
	if (welcome.align_bytes != bytes)
		errx(1, "alignment %llu", (unsigned long long)welcome.align_bytes);
	at = mmap(NULL, bytes, PROT_READ, MAP_SHARED, device, (off_t)bytes);
	if (at == MAP_FAILED)
		err(1, "one unit cannot be mapped");
	munmap(at, bytes);
	if (bytes == BLOCK)
		return;
	if (mmap(NULL, bytes, PROT_READ, MAP_SHARED, device, BLOCK) != MAP_FAILED)
		errx(1, "it can be mapped from a block on that is not aligned");
	if (mmap(NULL, BLOCK, PROT_READ, MAP_SHARED, device, 0) != MAP_FAILED)
		errx(1, "a block can be mapped alone");
}

int main(int argc, char **argv)
{
	const char *how = argc > 2 ? argv[1] : "";
	int fd = argc > 2 ? open(argv[2], O_RDWR) : -1;
	char *first;

	if (fd < 0)
		err(1, "usage: direct_probe HOW FILE");
	connect_to(fd);
	if (strcmp(how, "align") == 0 && argc > 3) {
		align_check(strtoull(argv[3], NULL, 0));
		return 0;
	}
	first = map_first(fd);
	if (strcmp(how, "store") == 0 && argc > 3) {
		memcpy(first, argv[3], strlen(argv[3]));
		return 0;
	}
	close(fd);
	close(device);
	if (strcmp(how, "child") == 0 && fork() > 0)
		return 0;
	close(sock);
	puts("mapped");
	fflush(stdout);
	for (;;) {
		pause();
		(void)*(volatile char *)first;
	}
}
