/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * For the guest: reads one page of a device-DAX node on CPU 0, in user mode, until a machine check tells that its memory is bad. Says "reading" when it
 * does, ends with 0 when it was told by SIGBUS at that page.
 *
 *   mce_read DEVICE OFFSET ALIGNMENT
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#define LIMIT_SEC 60

static const volatile uint8_t *page;

static void on_sigbus(int signal, siginfo_t *info, void *context)
{
	uintptr_t at = (uintptr_t)info->si_addr, unit = (uintptr_t)1 << info->si_addr_lsb;

	(void)signal;
	(void)context;
	/* A page of 2 MiB is named as a whole. */
	_exit(info->si_code == BUS_MCEERR_AR && at / unit == (uintptr_t)page / unit ? 0 : 3);
}

int main(int argc, char **argv)
{
	struct sigaction action = { .sa_sigaction = on_sigbus, .sa_flags = SA_SIGINFO };
	uint64_t off, align;
	uint8_t *map;
	cpu_set_t one;
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
	map = mmap(NULL, align, PROT_READ, MAP_SHARED, fd, (off_t)(off / align * align));
	if (map == MAP_FAILED) {
		perror("mmap");
		return 1;
	}
	page = map + off % align / 4096 * 4096;
	CPU_ZERO(&one);
	CPU_SET(0, &one);
	if (sched_setaffinity(0, sizeof(one), &one) || sigaction(SIGBUS, &action, NULL)) {
		perror("setting up");
		return 1;
	}
	alarm(LIMIT_SEC);
	(void)*page;
	puts("reading");
	fflush(stdout);
	for (;;)
		(void)*page;
}
