/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Guards of floor dax, with genuine SIGBUS: a file cut short under its mapping (BUS_ADRERR), and pages poisoned through
 * userfaultfd, whose file is whole.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "dax/dax.h"
#include "lib/uffd_poison.h"

#define PAGE_BYTES 4096u
#define POOL_BYTES (256u * PAGE_BYTES)

static struct dax *pool_make(void)
{
	const struct dax_opts opts = { .create = true, .size_bytes = POOL_BYTES };
	static uint8_t page[PAGE_BYTES];
	struct dax *dax = NULL;
	char why[512] = "";
	char path[64];

	snprintf(path, sizeof(path), "/dev/shm/test_dax_guard.%d.pool", (int)getpid());
	if (dax_open(path, &opts, &dax, why, sizeof(why)))
		fail_msg("%s", why);
	unlink(path);
	for (unsigned int i = 0; i < POOL_BYTES / PAGE_BYTES; i++) {
		memset(page, (int)(i + 1), sizeof(page));
		assert_int_equal(dax_store(dax, (uint64_t)i * PAGE_BYTES, page, sizeof(page)), 0);
	}
	dax_fence(dax);
	return dax;
}

/* A pool whose second half is gone. */
static struct dax *pool_make_cut(void)
{
	struct dax *dax = pool_make();

	assert_int_equal(ftruncate(dax_fd(dax), POOL_BYTES / 2), 0);
	return dax;
}

static uint8_t byte_read(const struct dax *dax, uint64_t off)
{
	return *(const volatile uint8_t *)dax_ptr(dax, off);
}

/* -1: bad memory, with its place in *bad_off */
static int byte_read_guarded(const struct dax *dax, uint64_t off, uint64_t *bad_off)
{
	struct dax_guard g;
	int value;

	if (dax_guard_enter(&g) != 0) {
		assert_ptr_equal(g.dax, dax);
		*bad_off = g.bad_off;
		return -1;
	}
	value = byte_read(dax, off);
	dax_guard_leave(&g);
	return value;
}

static void bad_page_check(struct dax *dax, uint64_t bad_start)
{
	static uint8_t buf[64 * PAGE_BYTES];
	uint64_t bad_off = 0;
	bool same = true;

	assert_int_equal(byte_read_guarded(dax, bad_start - 1, &bad_off), bad_start / PAGE_BYTES & 0xff);
	assert_int_equal(byte_read_guarded(dax, bad_start + 77, &bad_off), -1);
	assert_int_equal(bad_off, bad_start + 77);
	/* The first bad byte, whichever order the copy ran in. */
	for (uint64_t before = 0; before < 8 * PAGE_BYTES; before += PAGE_BYTES - 1)
		for (uint64_t after = 1; after < 8 * PAGE_BYTES; after += PAGE_BYTES - 1) {
			assert_int_equal(dax_load(dax, buf, bad_start - before, before + after, &bad_off),
					 -EIO);
			assert_int_equal(bad_off, bad_start);
		}
	assert_int_equal(dax_load(dax, buf, bad_start + 100, 50, &bad_off), -EIO);
	assert_int_equal(bad_off, bad_start + 100);
	assert_int_equal(dax_load(dax, buf, bad_start - 50, 100, NULL), -EIO);
	assert_int_equal(dax_load(dax, buf, bad_start - PAGE_BYTES, PAGE_BYTES, &bad_off), 0);
	assert_int_equal(dax_store(dax, bad_start, "x", 1), -EIO);
	assert_int_equal(dax_store(dax, bad_start - 10, buf, 20), -EIO);
	assert_int_equal(dax_zero(dax, bad_start, 100), -EIO);
	assert_int_equal(dax_move(dax, 0, bad_start, 100), -EIO);
	assert_int_equal(dax_move(dax, bad_start, 0, 32768), -EIO);
	assert_int_equal(dax_same(dax, 0, bad_start, 100, &same), -EIO);
	assert_true(same); /* untouched */
}

static void cut_file(void **state)
{
	static uint8_t buf[POOL_BYTES / 2];
	struct dax *dax = pool_make_cut();
	struct stat st;

	(void)state;
	bad_page_check(dax, POOL_BYTES / 2);
	/* Large stores, which may go through the file: it must not grow back. */
	assert_int_equal(dax_zero(dax, POOL_BYTES / 2 - 100, 32768), -EIO);
	assert_int_equal(dax_store(dax, POOL_BYTES / 2 - 100, buf, 32768), -EIO);
	assert_int_equal(dax_store(dax, POOL_BYTES - 65536, buf, 65536), -EIO);
	assert_int_equal(fstat(dax_fd(dax), &st), 0);
	assert_int_equal(st.st_size, POOL_BYTES / 2);
	assert_int_equal(dax_load(dax, buf, 0, sizeof(buf), NULL), 0);
	dax_close(dax);
}

static void nesting(void **state)
{
	struct dax *dax = pool_make_cut();
	volatile int inner_jumps = 0;
	volatile int reached = 0;
	struct dax_guard outer;
	struct dax_guard inner;
	char c;

	(void)state;
	if (dax_guard_enter(&outer) == 0) {
		if (dax_guard_enter(&inner) == 0) {
			(void)byte_read(dax, POOL_BYTES - 1);
			fail_msg("read of a bad page went on");
		} else {
			inner_jumps++;
			assert_int_equal(inner.bad_off, POOL_BYTES - 1);
		}
		/* The inner section has been left; the outer one still stands, around other guards too. */
		assert_int_equal(dax_load(dax, &c, POOL_BYTES - 2, 1, NULL), -EIO);
		assert_int_equal(dax_load(dax, &c, 0, 1, NULL), 0);
		if (dax_guard_enter(&inner) == 0)
			dax_guard_leave(&inner);
		reached = 1;
		(void)byte_read(dax, POOL_BYTES / 2 + 5);
		fail_msg("read of a bad page went on");
	}
	assert_int_equal(outer.bad_off, POOL_BYTES / 2 + 5);
	assert_int_equal(inner_jumps, 1);
	assert_int_equal(reached, 1);
	dax_close(dax);
}

static void mask_kept(void **state)
{
	struct dax *dax = pool_make_cut();
	uint64_t bad_off;
	sigset_t before;
	sigset_t after;

	(void)state;
	sigemptyset(&before);
	sigaddset(&before, SIGUSR2);
	assert_int_equal(pthread_sigmask(SIG_SETMASK, &before, NULL), 0);
	assert_int_equal(byte_read_guarded(dax, POOL_BYTES - 1, &bad_off), -1);
	sigemptyset(&before);
	assert_int_equal(pthread_sigmask(SIG_SETMASK, &before, &after), 0);
	for (int sig = 1; sig < 32; sig++)
		assert_int_equal(sigismember(&after, sig), sig == SIGUSR2);
	dax_close(dax);
}

static void several_pools(void **state)
{
	struct dax *a = pool_make_cut();
	struct dax *b = pool_make_cut();
	uint64_t bad_off;

	(void)state;
	assert_int_equal(byte_read_guarded(a, POOL_BYTES - 1, &bad_off), -1);
	assert_int_equal(byte_read_guarded(b, POOL_BYTES - 2, &bad_off), -1);
	assert_int_equal(bad_off, POOL_BYTES - 2);
	dax_close(a);
	assert_int_equal(byte_read_guarded(b, POOL_BYTES - 3, &bad_off), -1);
	assert_int_equal(bad_off, POOL_BYTES - 3);
	dax_close(b);
}

struct reader {
	struct dax *dax;
	pthread_barrier_t *barrier;
	uint64_t off;
	unsigned int wrong_count;
};

static void *reader_run(void *ctx)
{
	struct reader *r = ctx;
	uint64_t bad_off;

	pthread_barrier_wait(r->barrier);
	for (unsigned int i = 0; i < 5000; i++) {
		uint64_t off = r->off + i % PAGE_BYTES;

		bad_off = 0;
		if (byte_read_guarded(r->dax, off, &bad_off) != -1 || bad_off != off)
			r->wrong_count++;
		if (byte_read_guarded(r->dax, i, &bad_off) != (int)(i / PAGE_BYTES + 1))
			r->wrong_count++;
	}
	return NULL;
}

static void two_threads(void **state)
{
	struct dax *dax = pool_make_cut();
	pthread_barrier_t barrier;
	struct reader readers[2];
	pthread_t threads[2];

	(void)state;
	assert_int_equal(pthread_barrier_init(&barrier, NULL, 2), 0);
	for (unsigned int i = 0; i < 2; i++) {
		readers[i] = (struct reader){ dax, &barrier, POOL_BYTES / 2 + i * 10 * PAGE_BYTES, 0 };
		assert_int_equal(pthread_create(&threads[i], NULL, reader_run, &readers[i]), 0);
	}
	for (unsigned int i = 0; i < 2; i++) {
		assert_int_equal(pthread_join(threads[i], NULL), 0);
		assert_int_equal(readers[i].wrong_count, 0);
	}
	pthread_barrier_destroy(&barrier);
	dax_close(dax);
}

static void *altstack_run(void *ctx)
{
	struct reader *r = ctx;
	stack_t stack = { .ss_sp = malloc(65536), .ss_size = 65536 };
	stack_t off = { .ss_flags = SS_DISABLE };
	uint64_t bad_off;

	if (!stack.ss_sp || sigaltstack(&stack, NULL))
		r->wrong_count++;
	for (unsigned int i = 0; i < 100; i++)
		if (byte_read_guarded(r->dax, r->off, &bad_off) != -1)
			r->wrong_count++;
	sigaltstack(&off, NULL);
	free(stack.ss_sp);
	return NULL;
}

/* Jumping off an alternate stack leaves it free for the next fault. */
static void alternate_stack(void **state)
{
	struct reader r = { .dax = pool_make_cut(), .off = POOL_BYTES / 2 };
	pthread_t thread;

	(void)state;
	assert_int_equal(pthread_create(&thread, NULL, altstack_run, &r), 0);
	assert_int_equal(pthread_join(thread, NULL), 0);
	assert_int_equal(r.wrong_count, 0);
	dax_close(r.dax);
}

/* Poisons the page at off in the mapping; returns the userfaultfd that keeps it so. Skips where it cannot be had. */
static int page_poison(struct dax *dax, uint64_t off)
{
	uintptr_t addr = (uintptr_t)dax_ptr(dax, off);
	struct uffdio_range range = { .start = addr, .len = PAGE_BYTES };
	struct uffdio_api api = { .api = UFFD_API, .features = UFFD_FEATURE_POISON };
	struct uffdio_register reg = { .range = range, .mode = UFFDIO_REGISTER_MODE_MISSING };
	struct uffdio_poison poison = { .range = range };
	int fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | UFFD_USER_MODE_ONLY);

	if (fd < 0 || ioctl(fd, UFFDIO_API, &api)) {
		print_message("skipped: userfaultfd with UFFD_FEATURE_POISON: %s\n", strerror(errno));
		if (fd >= 0)
			close(fd);
		dax_close(dax);
		skip();
	}
	assert_int_equal(ioctl(fd, UFFDIO_REGISTER, &reg), 0);
	assert_int_equal(madvise((void *)addr, PAGE_BYTES, MADV_DONTNEED), 0);
	assert_int_equal(ioctl(fd, UFFDIO_POISON, &poison), 0);
	return fd;
}

static void poisoned_page(void **state)
{
	uint64_t bad_start = 20 * PAGE_BYTES;
	struct dax *dax = pool_make();
	int fd = page_poison(dax, bad_start);
	uint64_t bad_off;

	(void)state;
	bad_page_check(dax, bad_start);
	assert_int_equal(byte_read_guarded(dax, bad_start + PAGE_BYTES, &bad_off), 22);
	close(fd);
	dax_close(dax);
}

static void poisoned_ram(void **state)
{
	uint64_t bad_start = 20 * PAGE_BYTES;
	uint8_t *image = malloc(POOL_BYTES);
	struct dax *dax = NULL;
	int fd;

	(void)state;
	assert_non_null(image);
	for (unsigned int i = 0; i < POOL_BYTES; i++)
		image[i] = (uint8_t)(i / PAGE_BYTES + 1);
	assert_int_equal(dax_open_ram(POOL_BYTES, image, NULL, &dax), 0);
	free(image);
	fd = page_poison(dax, bad_start);
	bad_page_check(dax, bad_start);
	close(fd);
	dax_close(dax);
}

/* Runs f in a child and returns its wait status. */
static int child_status(void (*f)(void))
{
	const struct rlimit none = { 0, 0 };
	int status = 0;
	pid_t child = fork();

	assert_true(child >= 0);
	if (child == 0) {
		setrlimit(RLIMIT_CORE, &none);
		signal(SIGBUS, SIG_DFL); /* not the test runner's handler, nor ours: f opens a pool */
		f();
		_exit(0);
	}
	assert_int_equal(waitpid(child, &status, 0), child);
	return status;
}

static bool died_of_sigbus(int status)
{
	return WIFSIGNALED(status) && WTERMSIG(status) == SIGBUS;
}

static void *foreign_make(void)
{
	int fd = memfd_create("foreign", MFD_CLOEXEC);
	void *p;

	if (fd < 0 || ftruncate(fd, PAGE_BYTES))
		_exit(3);
	p = mmap(NULL, 2 * PAGE_BYTES, PROT_READ, MAP_SHARED, fd, 0);
	if (p == MAP_FAILED)
		_exit(3);
	return (uint8_t *)p + PAGE_BYTES;
}

static void child_unguarded(void)
{
	struct dax *dax = pool_make_cut();

	(void)byte_read(dax, POOL_BYTES - 1);
}

static void child_foreign(void)
{
	struct dax *dax = pool_make_cut();
	const volatile uint8_t *foreign = foreign_make();
	struct dax_guard g;

	(void)dax;
	if (dax_guard_enter(&g) == 0) {
		(void)*foreign;
		dax_guard_leave(&g);
	}
}

static void child_after_leave(void)
{
	struct dax *dax = pool_make_cut();
	struct dax_guard g;
	uint64_t bad_off;

	if (byte_read_guarded(dax, POOL_BYTES - 1, &bad_off) != -1)
		_exit(3);
	if (dax_guard_enter(&g) == 0)
		dax_guard_leave(&g);
	(void)byte_read(dax, POOL_BYTES - 1);
}

static void child_sent(void)
{
	struct dax *dax = pool_make_cut();
	struct dax_guard g;

	(void)dax;
	if (dax_guard_enter(&g) == 0) {
		raise(SIGBUS);
		dax_guard_leave(&g);
	}
}

static void not_ours_kills(void **state)
{
	(void)state;
	assert_true(died_of_sigbus(child_status(child_unguarded)));
	assert_true(died_of_sigbus(child_status(child_foreign)));
	assert_true(died_of_sigbus(child_status(child_after_leave)));
	assert_true(died_of_sigbus(child_status(child_sent)));
}

static void earlier_handler(int sig, siginfo_t *info, void *context)
{
	(void)sig;
	(void)info;
	(void)context;
	_exit(42);
}

static void child_chain(void)
{
	struct sigaction action = { .sa_sigaction = earlier_handler, .sa_flags = SA_SIGINFO };

	sigaction(SIGBUS, &action, NULL);
	child_foreign();
}

static void chain_to_earlier(void **state)
{
	int status = child_status(child_chain);

	(void)state;
	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), 42);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(chain_to_earlier), cmocka_unit_test(cut_file),
		cmocka_unit_test(nesting),          cmocka_unit_test(several_pools),
		cmocka_unit_test(mask_kept),        cmocka_unit_test(two_threads),
		cmocka_unit_test(alternate_stack),  cmocka_unit_test(poisoned_page),
		cmocka_unit_test(poisoned_ram),     cmocka_unit_test(not_ours_kills),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
