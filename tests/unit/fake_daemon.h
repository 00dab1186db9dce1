/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A daemon of direct mappings (umbra/direct.h) in the test's process, and the kernel beside it: ioctl(), fstat(), pread() and pwrite() of libumbra come here (the linker's --wrap). It has one
 * file, whose blocks lie in a device in memory, and does what it is told: grants, moves, shares, answers errors, is slow, dies.
 *
 * Blocks that are taken away are filled with FAKE_POISON as soon as all have let go; nobody may read that or store over it: fake_check().
 */
#ifndef UMBRA_TESTS_FAKE_DAEMON_H
#define UMBRA_TESTS_FAKE_DAEMON_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include <umbra/direct.h>

#define FAKE_BLOCK 4096u
#define FAKE_POISON 0xdeadbeefdeadbeefull
#define FAKE_CONNS 16u
#define FAKE_HANDLE 7u
#define FAKE_SLOT 1u
#define FAKE_FSTAT 1ul
#define FAKE_PREAD 2ul
#define FAKE_PWRITE 3ul

struct fake;

struct fake_block {
	uint32_t dev; /* in the device; 0: a hole */
	bool shared, lost;
	uint8_t *copy; /* of what is shared, at the time that it was: nobody may change it */
};

struct fake_conn {
	struct fake *fake;
	int sock;
	pthread_t thread;
	bool open;
	unsigned attached; /* so often, under FAKE_HANDLE */
	uint32_t rights;   /* of all that are attached together */
	unsigned acks;     /* that have not come */
};

struct fake {
	pthread_mutex_t lock;
	pthread_cond_t changed;
	int fd;  /* the file as processes open it: its data is not there */
	int dev; /* the device */
	uint8_t *base;
	uint32_t dev_blocks, dev_next;
	uint8_t *used;     /* of each block of the device */
	uint8_t *poisoned; /* it has been filled with poison, and not been used since */
	struct umbra_slot *slots;
	int slots_fd;
	struct fake_block *blocks;
	uint32_t blocks_max;
	uint64_t size;
	char path[80], socket[96];
	int listener;
	pthread_t acceptor;
	struct fake_conn conns[FAKE_CONNS];
	bool changing; /* nothing is granted */
	/* What it is told to do */
	atomic_uint rights;
	atomic_bool no_ioctl;   /* it is not on such a mount */
	atomic_uint generation; /* of the file */
	atomic_uint pool;       /* its name */
	atomic_ulong fails;     /* this call of ioctl() fails; FAKE_FSTAT: fstat(), and so on */
	atomic_int fails_with, fails_times;
	atomic_uint pieces_max; /* in an answer */
	atomic_uint delay_ms;   /* before an answer */
	atomic_int hello_error; /* instead of WELCOME */
	atomic_int attach_error, map_error, map_write_error;
	atomic_uint write_max;   /* MAP with WRITE of more blocks: ENOSPC; 0: of any */
	atomic_bool strews;      /* what is moved or copied does not come to lie in order */
	atomic_int type_instead; /* answers MAP with this type */
	atomic_bool deaf;        /* ends the connection at MAP */
	atomic_bool mends;       /* BAD: nothing is lost, the block moves. Otherwise line 3 of it is */
	/* What it has seen */
	atomic_uint connects, attaches, detaches, maps, releases, bads, kernel_reads, kernel_writes;
	atomic_uint open_then; /* descriptors of the file that the process had at the last DETACH */
	bool late;             /* something was stored after an acknowledgement */
};

struct fake *fake_new(uint32_t dev_blocks, uint32_t blocks_max);
void fake_free(struct fake *f);
/* How many descriptors of the file there are, but for the fake's own. */
unsigned fake_opens(struct fake *f);
/* The same file, opened anew. */
int fake_open(struct fake *f, int flags);
/* All connections end; nobody can connect until fake_up(). */
void fake_down(struct fake *f);
void fake_up(struct fake *f);
/*
 * Its mount is dead from now on: descriptors of the file that are open give ENOTCONN for ever (before the connections end, or after that). Then it is mounted again, and who looks for the
 * next mount finds it.
 */
void fake_kill(struct fake *f, bool mount_first);
void fake_mount(struct fake *f);
bool fake_fd_is_dead(int fd);
/* Somebody has the file attached. */
bool fake_is_attached(struct fake *f);

/* Blocks [lo, hi) of the file, each filled with words of (number << 32 | tag). In the device in order, or strewn; lo >= hi: only the size. */
void fake_fill(struct fake *f, uint32_t lo, uint32_t hi, uint32_t tag, bool strewn);
void fake_set_size(struct fake *f, uint64_t size);
uint64_t fake_word(uint32_t block, uint32_t tag);

/* A change of blocks: all let go of them (fails the test after 20 s), nothing is granted until the end. One at a time. */
void fake_begin(struct fake *f, uint32_t lo, uint32_t hi, bool write_only);
void fake_end(struct fake *f);
/* Between the two. */
void fake_move(struct fake *f, uint32_t block);
void fake_punch(struct fake *f, uint32_t block);
void fake_share(struct fake *f, uint32_t block);
/* What nobody may change has not changed. Nobody is at work. */
void fake_check(struct fake *f);
/* Bytes of the file as they are, from the device. */
void fake_read(struct fake *f, uint64_t off, void *buf, uint64_t len);

#endif
