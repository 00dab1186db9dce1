/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * For the guest: makes one page of a pool bad, as the kernel does when memory fails (MADV_HWPOISON). Of a file on tmpfs it stays bad for everybody; of a
 * device-DAX node those who map it are told.
 *
 *   hwpoison FILE OFFSET ALIGNMENT
 */
#include <fcntl.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#ifndef MADV_HWPOISON
#define MADV_HWPOISON 100
#endif

static void on_sigbus(int signal)
{
	(void)signal;
	_exit(0);
}

int main(int argc, char **argv)
{
	uint64_t off, align;
	uint8_t *map;
	int fd;

	if (argc != 4)
		return 2;
	fd = open(argv[1], O_RDWR);
	off = strtoull(argv[2], NULL, 0);
	align = strtoull(argv[3], NULL, 0);
	if (fd < 0) {
		perror(argv[1]);
		return 1;
	}
	map = mmap(NULL, align, PROT_READ | PROT_WRITE, MAP_SHARED, fd, (off_t)(off / align * align));
	if (map == MAP_FAILED) {
		perror("mmap");
		return 1;
	}
	(void)*(volatile uint8_t *)(map + off % align);
	signal(SIGBUS, on_sigbus); /* we map it too; what others are told is the point */
	if (madvise(map + off % align / 4096 * 4096, 4096, MADV_HWPOISON)) {
		perror("madvise");
		return 1;
	}
	_exit(0);
}
